#!/bin/sh
# Beats for one instance with curl (7.84 or newer) and what every Unix has. Its settings: ../README.md
set -eu
registration=${BEATKEEPER_REGISTRATION:?} namespace=${BEATKEEPER_NAMESPACE:?}
instance=${BEATKEEPER_INSTANCE:-${POD_NAME:?or BEATKEEPER_INSTANCE has to be set}}
leases=coordination.k8s.io/v1/namespaces/$namespace/leases lease=$registration.$instance
account=/var/run/secrets/kubernetes.io/serviceaccount
patience=10000 # milliseconds for one request, as long as the registration is unknown
owner= # a Pod owns its Lease: the address is the Pod's then, and the Lease goes when the Pod goes
[ -z "${POD_UID:-}" ] || owner='{"apiVersion": "v1", "kind": "Pod", "name": "'$POD_NAME'", "uid": "'$POD_UID'"}'

seconds() { echo "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"; }
random() { echo $(($(od -An -N4 -tu4 /dev/urandom) % ($1 + 1))); }
# METHOD PATH [OPTION…]. The token is read each time, since a Pod's is replaced now and then; it goes through a pipe,
# since every user of the machine may read a command line.
call() {
  method=$1 path=$2 && shift 2
  printf 'header = "Authorization: Bearer %s"\n' "$(cat "${TOKEN_FILE:-$account/token}")" |
    curl --config - --silent --show-error --max-time "$(seconds "$patience")" --request "$method" \
      --cacert "${CA_FILE:-$account/ca.crt}" "$@" "${API_SERVER:-https://kubernetes.default.svc}/apis/$path"
}
# METHOD PATH TYPE BODY: sets status, and after to the seconds that the API server asks to wait.
send() {
  answer=$(call "$1" "$2" --header "Content-Type: application/$3" --data "$4" \
    --output /dev/null --write-out '%{http_code} %header{retry-after}') || true # then the status is 000
  status=${answer%% *} after=${answer#* }
}
# FIELD: a duration of the registration, such as 1m30s or 1500ms, in milliseconds.
duration() {
  echo $(($(printf %s "$spec" | sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' | sed -E \
    's/0*([0-9]+)(h|ms|m|s)/+\1*\2/g; s/\*ms//g; s/\*h/*3600000/g; s/\*m/*60000/g; s/\*s/*1000/g')))
}
# busybox date knows no fractions, so the six digits are random: no clock is compared, a beat just has to be new.
now() { date -u "+%Y-%m-%dT%H:%M:%S.$(printf %06d "$(random 999999)")Z"; }
renewal() { echo '{"spec": {"renewTime": "'"$(now)"'"}}'; }
whole() {
  cat <<JSON
{"metadata": {"name": "$lease", "labels": {"beatkeeper.dev/registration": "$registration"}, "ownerReferences": [$owner],
  "annotations": {"beatkeeper.dev/addresses": "${BEATKEEPER_ADDRESS:-}"}},
 "spec": {"holderIdentity": "$instance", "leaseDurationSeconds": $(((ttl + 999) / 1000)), "renewTime": "$(now)"}}
JSON
}
spec=$(call GET "beatkeeper.dev/v1alpha1/namespaces/$namespace/serviceregistrations/$registration" --fail)
interval=$(duration interval) ttl=$(duration ttl)
patience=$(((ttl - interval) / 6)) backoff=100 # three tries fit into the ttl, even if all of them time out
trap 'call DELETE "$leases/$lease" --fail --output /dev/null; exit 0' TERM INT # it leaves at once
body=whole # the first beat takes over what an earlier life has left
while :; do
  send PATCH "$leases/$lease" merge-patch+json "$($body)"
  [ "$status" != 404 ] || send POST "$leases" json "$(whole)"
  case $status in
    2*) body=renewal backoff=100 pause=$((interval * 9 / 10 + $(random $((interval / 5))))) ;;
    *) # with full jitter, so that clients that failed together do not retry together
      case ${after:-0} in *[!0-9]* | 0?* | ????*) after=999 ;; esac # a date or hours: as long as patience lasts
      asked=$((${after:-0} * 1000 < patience ? ${after:-0} * 1000 : patience))
      pause=$((asked + $(random "$backoff"))) backoff=$((backoff * 2 < patience ? backoff * 2 : patience))
      echo "beat failed with status $status; again in $pause ms" >&2 ;;
  esac
  sleep "$(seconds "$pause")" & wait $! # in the background, so that a signal need not wait
done
