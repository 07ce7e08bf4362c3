#!/bin/sh
# Writes go.mod and go.sum anew for other versions: sh pin.sh KUBERNETES ETCD, as in: sh pin.sh 1.37.1 3.7.3
# Then change the two constants in ../src/binaries.rs; a test compares them.
set -eu
kubernetes=$1 etcd=$2
here=$(cd "$(dirname "$0")" && pwd)
export GOFLAGS=-mod=mod GOTOOLCHAIN=local GOWORK=off

cd "$here/kubernetes"
source=$(go mod download -json "k8s.io/kubernetes@v$kubernetes" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
go=$(sed -n 's/^go //p' "$source")
# Kubernetes replaces its staging modules by folders that its module does not ship; they are published as v0.MINOR.PATCH.
{
    printf 'module beatkeeper.dev/tests/cluster/kubernetes\n\ngo %s\n\n' "$go"
    printf 'require k8s.io/kubernetes v%s\n\nreplace (\n' "$kubernetes"
    sed -n 's#^.*\(k8s.io/[a-z-]*\) => ./staging/.*#\1#p' "$source" | while read -r module; do
        printf '\t%s => %s v0.%s\n' "$module" "$module" "${kubernetes#*.}"
    done
    printf ')\n'
} > go.mod
: > go.sum
go get -tool \
    "k8s.io/kubernetes/cmd/kube-apiserver@v$kubernetes" \
    "k8s.io/kubernetes/cmd/kube-controller-manager@v$kubernetes" \
    "k8s.io/kubernetes/cmd/kubectl@v$kubernetes"

cd "$here/etcd"
printf 'module beatkeeper.dev/tests/cluster/etcd\n\ngo %s\n' "$go" > go.mod
: > go.sum
go get -tool "go.etcd.io/etcd/server/v3@v$etcd"
