#!/bin/sh
# A tenant and its key for the chat application, made once and kept in the Secret `open-webui`.
set -eu
namespace=$1
kubectl="kubectl --namespace $namespace"
if $kubectl get secret open-webui >/dev/null 2>&1; then
  exit 0
fi
$kubectl rollout status deployment/parley-gateway --timeout=15m
$kubectl scale deployment/parley-operator --replicas=1
trap '$kubectl scale deployment/parley-operator --replicas=0' EXIT
$kubectl rollout status deployment/parley-operator --timeout=5m
tenant=$($kubectl exec deployment/parley-operator -- parley tenant create "open-webui-$(date +%s)")
key=$($kubectl exec deployment/parley-operator -- parley key issue --tenant "$tenant" --role member)
# By standard input: what is on a command line, others on this machine can read.
$kubectl create -f - <<SECRET
apiVersion: v1
kind: Secret
metadata: {name: open-webui}
stringData:
  key: $key
  session: $(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
SECRET
