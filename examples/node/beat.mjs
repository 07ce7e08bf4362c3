// Beats for one instance with Node (18 or newer) and no package. Its settings: ../README.md
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'

const account = '/var/run/secrets/kubernetes.io/serviceaccount'
const {
  BEATKEEPER_REGISTRATION: registration, BEATKEEPER_NAMESPACE: namespace, BEATKEEPER_ADDRESS: addresses = '',
  POD_NAME: pod, POD_UID: uid, BEATKEEPER_INSTANCE: instance = pod, API_SERVER: server = 'https://kubernetes.default.svc',
  CA_FILE: ca = `${account}/ca.crt`, TOKEN_FILE: token = `${account}/token`,
} = process.env
if (!registration || !namespace || !instance) throw new Error('set BEATKEEPER_REGISTRATION, _NAMESPACE and _INSTANCE')
const lease = `${registration}.${instance}`, leases = `coordination.k8s.io/v1/namespaces/${namespace}/leases`
const agent = new Agent({ keepAlive: true, autoSelectFamily: true }) // it tries the addresses of a name in turn
let patience = 10_000 // milliseconds for one request, as long as the registration is unknown

// Throws with the `status`, and with `after`: the seconds that the API server asks to wait.
async function call(method, path, type = 'json', body = undefined) {
  const authorization = `Bearer ${readFileSync(token, 'utf8').trim()}` // it is replaced now and then, and so is the CA
  const headers = { authorization, 'content-type': `application/${type}` }
  const options = { method, agent, headers, ca: readFileSync(ca), signal: AbortSignal.timeout(patience) }
  const outgoing = request(`${server}/apis/${path}`, options)
  const [answer] = await once(outgoing.end(body && JSON.stringify(body)), 'response')
  let text = ''
  for await (const part of answer.setEncoding('utf8')) text += part
  if (answer.statusCode < 300) return JSON.parse(text)
  throw Object.assign(new Error(text), { status: answer.statusCode, after: answer.headers['retry-after'] })
}
// A duration of the registration, such as 1m30s or 1500ms, in milliseconds.
const duration = text => [...text.matchAll(/(\d+)(h|ms|m|s)/g)]
  .reduce((sum, [, number, unit]) => sum + number * { h: 3_600_000, m: 60_000, s: 1000, ms: 1 }[unit], 0)
// Six digits of a second are asked for, and toISOString has three.
const renewal = () => ({ spec: { renewTime: new Date().toISOString().replace('Z', '000Z') } })
const whole = () => ({
  metadata: {
    name: lease, labels: { 'beatkeeper.dev/registration': registration },
    annotations: { 'beatkeeper.dev/addresses': addresses },
    // A Pod owns its Lease: the address is the Pod's then, and the Lease goes when the Pod goes.
    ownerReferences: uid ? [{ apiVersion: 'v1', kind: 'Pod', name: pod, uid }] : [],
  }, spec: { holderIdentity: instance, leaseDurationSeconds: Math.ceil(ttl / 1000), ...renewal().spec },
})
const { spec } = await call('GET', `beatkeeper.dev/v1alpha1/namespaces/${namespace}/serviceregistrations/${registration}`)
const ttl = duration(spec.ttl), interval = duration(spec.interval), stop = new AbortController()
patience = Math.ceil((ttl - interval) / 6) // three tries fit into the ttl, even if all of them time out
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stop.abort())
let body = whole, failures = 0, pause // the first beat takes over what an earlier life has left
while (!stop.signal.aborted) {
  try {
    await call('PATCH', `${leases}/${lease}`, 'merge-patch+json', body())
      .catch(error => error.status === 404 ? call('POST', leases, 'json', whole()) : Promise.reject(error))
    body = renewal, failures = 0, pause = interval * (0.9 + Math.random() / 5)
  } catch (error) { // with full jitter, so that clients that failed together do not retry together
    const asked = Math.min(Math.abs(error.after * 1000) || 0, patience) // however long the API server asks to wait
    pause = asked + Math.random() * Math.min(patience, 100 * 2 ** failures++)
    console.error(`beat failed: ${error.message}; again in ${Math.round(pause)} ms`)
  }
  await sleep(pause, undefined, { signal: stop.signal }).catch(() => {})
}
await call('DELETE', `${leases}/${lease}`) // it leaves at once
