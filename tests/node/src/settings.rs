//! The configuration of every process of the node, as files in the node's folder.

use std::fs;

use anyhow::Result;
use beatkeeper_cluster::Part;
use serde_json::{Value, json};

use crate::inside::{ADDRESS, Node};
use crate::sweep;

pub(crate) const NAME: &str = "node-1";
/// The socket is on the namespace's own /run, and its path is short enough for a Unix socket.
pub(crate) const CONTAINERD: &str = "/run/containerd/containerd.sock";
const DNS: &str = "10.96.0.10";

/// The identities of the node's processes: each has a token, which the API server reads from a file.
pub(crate) struct Tokens([(&'static str, &'static str, &'static str, String); 3]);

impl Tokens {
    pub(crate) fn new(random: impl Fn() -> String) -> Self {
        Self([
            ("kubelet", "system:node:node-1", "system:nodes", random()),
            ("scheduler", "system:kube-scheduler", "", random()),
            ("proxy", "system:kube-proxy", "", random()),
        ])
    }

    pub(crate) fn file(&self) -> String {
        self.0
            .iter()
            .map(|(name, user, group, token)| format!("{token},{user},{name},\"{group}\"\n"))
            .collect()
    }
}

pub(crate) fn write(node: &Node, tokens: &Tokens) -> Result<()> {
    let at = |name: &str| node.folder.join(name);
    let server = node.plane.url(Part::ApiServer);
    let pki = node.plane.data_folder().join("pki");
    for (name, _, _, token) in &tokens.0 {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "node", "cluster": {
                "server": server, "certificate-authority": pki.join("ca.crt"),
            } }],
            "users": [{ "name": "node", "user": { "token": token } }],
            "contexts": [{ "name": "node", "context": { "cluster": "node", "user": "node" } }],
            "current-context": "node",
        });
        write_json(node, &format!("{name}.kubeconfig"), &kubeconfig)?;
    }
    fs::write(at("containerd.toml"), containerd(node))?;
    fs::create_dir_all(at("cni"))?;
    write_json(node, "cni/10-bridge.conflist", &cni(node))?;
    // The file is empty: Pods get the cluster's DNS, and no other DNS server can be reached from here.
    fs::write(at("resolv.conf"), "")?;
    write_json(node, "kubelet.json", &kubelet(node))?;
    write_json(node, "proxy.json", &proxy(node))?;
    fs::write(at("Corefile"), corefile(node))?;
    write_json(node, "dns.json", &dns())
}

fn write_json(node: &Node, name: &str, value: &Value) -> Result<()> {
    Ok(fs::write(node.folder.join(name), serde_json::to_string_pretty(value)?)?)
}

fn containerd(node: &Node) -> String {
    let folder = node.folder.display();
    let programs = node.programs.display();
    format!(
        r#"version = 3
root = "{folder}/containerd"
state = "/run/containerd"

[grpc]
address = "{CONTAINERD}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "localhost/beatkeeper/pause:test"

[plugins."io.containerd.cri.v1.runtime"]
# Root of a container or of a small machine may lack the right to lower it.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{programs}"]
conf_dir = "{folder}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#
    )
}

fn cni(node: &Node) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": node.folder.join("ipam"),
                "ranges": [[{ "subnet": "10.88.0.0/24", "gateway": ADDRESS }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
}

fn kubelet(node: &Node) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": node.plane.data_folder().join("pki/ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": node.folder.join("resolv.conf"),
        // All containers are below one cgroup of ours, which is removed with the node. The kubelet passes this
        // cgroup to containerd only if it manages cgroups per QOS. Otherwise containerd would make the cgroups at
        // the top, where nothing shows which node they belong to.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", sweep::cgroup(&node.folder)),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        // The disk belongs to the machine: its free space says nothing about the node.
        "evictionHard": { "nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "50Mi" },
        "imageGCHighThresholdPercent": 100,
        "maxPods": 110,
    })
}

fn proxy(node: &Node) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": node.folder.join("proxy.kubeconfig") },
        "mode": "nftables",
        "hostnameOverride": NAME,
        "detectLocalMode": "BridgeInterface",
        "detectLocal": { "bridgeInterface": "cni0" },
        "conntrack": { "maxPerCore": 0 },
        // The network namespace is our own, so these ports are free.
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    })
}

fn corefile(node: &Node) -> String {
    let kubeconfig = node.plane.kubeconfig();
    format!(
        ".:53 {{\n    bind {ADDRESS}\n    errors\n    kubernetes cluster.local {{\n        kubeconfig {}\n        \
         pods disabled\n        ttl 1\n    }}\n}}\n",
        kubeconfig.display()
    )
}

/// CoreDNS runs beside the Pods, on the bridge's address. Pods reach it as in every cluster.
fn dns() -> Value {
    let ports = |more: &str| {
        ["UDP", "TCP"].map(|protocol| {
            let mut port = json!({ "name": format!("dns-{}", protocol.to_lowercase()), "port": 53, "protocol": protocol });
            if !more.is_empty() {
                port[more] = json!(53);
            }
            port
        })
    };
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
            "spec": { "clusterIP": DNS, "ports": ports("targetPort") },
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns", "namespace": "kube-system",
                "labels": { "kubernetes.io/service-name": "kube-dns" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [ADDRESS], "conditions": { "ready": true } }],
            "ports": ports(""),
        },
    ] })
}
