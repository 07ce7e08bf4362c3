"""Beats for one instance with the kubernetes package. Its settings: ../README.md"""
import datetime, math, os, random, re, signal, sys, time
from kubernetes import client, config

ENV = os.environ
REGISTRATION, NAMESPACE = ENV["BEATKEEPER_REGISTRATION"], ENV["BEATKEEPER_NAMESPACE"]
INSTANCE = ENV.get("BEATKEEPER_INSTANCE") or ENV["POD_NAME"]
LEASE = f"{REGISTRATION}.{INSTANCE}"

def seconds(duration):  # of the registration, such as 1m30s or 1500ms
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum(int(number) * units[unit] for number, unit in re.findall("([0-9]+)(h|ms|m|s)", duration))

def renewal():  # with exactly six digits of a second
    return {"spec": {"renewTime": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}

def whole():
    pod = {"apiVersion": "v1", "kind": "Pod", "name": ENV.get("POD_NAME"), "uid": ENV.get("POD_UID")}
    return {"metadata": {
        "name": LEASE, "labels": {"beatkeeper.dev/registration": REGISTRATION},
        "annotations": {"beatkeeper.dev/addresses": ENV.get("BEATKEEPER_ADDRESS", "")},
        # A Pod owns its Lease: the address is the Pod's then, and the Lease goes when the Pod goes.
        "ownerReferences": [pod] if pod["uid"] else [],
    }, "spec": {"holderIdentity": INSTANCE, "leaseDurationSeconds": math.ceil(ttl), **renewal()["spec"]}}

def beat(body):
    try:
        api.patch_namespaced_lease(LEASE, NAMESPACE, body, **limits)
    except client.ApiException as error:
        if error.status != 404:
            raise
        api.create_namespaced_lease(NAMESPACE, whole(), **limits)

def connect():  # with the CA and the token that the files hold now: the kubeconfig's, or a Pod's own
    settings = client.Configuration()
    settings.retries = False  # they are ours to time: see below
    config.load_config(client_configuration=settings)
    return client.CoordinationV1Api(client.ApiClient(settings))

api = connect()
spec = client.CustomObjectsApi(api.api_client).get_namespaced_custom_object(
    "beatkeeper.dev", "v1alpha1", NAMESPACE, "serviceregistrations", REGISTRATION, _request_timeout=10)["spec"]
ttl, interval = seconds(spec["ttl"]), seconds(spec["interval"])
patience = (ttl - interval) / 6  # three tries fit into the ttl, even if all of them time out
limits = {"_request_timeout": (patience, patience)}  # as a pair, since a fraction by itself is ignored
body, failures = whole, 0  # the first beat takes over what an earlier life has left
for number in signal.SIGTERM, signal.SIGINT:
    signal.signal(number, lambda *_: sys.exit())  # by way of `finally`
try:
    while True:
        try:
            api = api or connect()
            beat(body())
            body, failures, pause = renewal, 0, interval * random.uniform(0.9, 1.1)
        except Exception as error:  # whatever it is: a token may be revoked, a CA replaced, a file just being written
            api, after = None, (getattr(error, "headers", None) or {}).get("Retry-After", "")
            asked = min(int(after), patience) if after.isdecimal() else 0  # however long the API server asks to wait
            # With full jitter, so that clients that failed together do not retry together.
            failures, pause = failures + 1, asked + random.uniform(0, min(patience, 0.1 * 2 ** min(failures, 10)))
            print(f"beat failed: {error}; again in {pause:.1f} s", file=sys.stderr)
        time.sleep(pause)
finally:
    connect().delete_namespaced_lease(LEASE, NAMESPACE, **limits)  # it leaves at once
