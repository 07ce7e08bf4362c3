// Beats for one instance with client-go. Its settings: ../README.md
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	apply "k8s.io/client-go/applyconfigurations/coordination/v1"
	owner "k8s.io/client-go/applyconfigurations/meta/v1"
	client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func must[T any](value T, err error) T { runtime.Must(err); return value }

func main() {
	registration, namespace := os.Getenv("BEATKEEPER_REGISTRATION"), os.Getenv("BEATKEEPER_NAMESPACE")
	pod, uid := os.Getenv("POD_NAME"), types.UID(os.Getenv("POD_UID"))
	instance := cmp.Or(os.Getenv("BEATKEEPER_INSTANCE"), pod)
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	connect := func() (*client.CoordinationV1Client, error) { // with the CA and the token that the files hold now
		config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG")) // or a Pod's own
		if err == nil {
			err = rest.LoadTLSFiles(config) // otherwise client-go goes on with the CA that it has read before
		}
		if err != nil {
			return nil, err
		}
		return client.NewForConfig(config)
	}
	api := must(connect())
	var declared struct {
		Spec struct{ TTL, Interval meta.Duration }
	}
	path := "/apis/beatkeeper.dev/v1alpha1/namespaces/" + namespace + "/serviceregistrations/" + registration
	must(0, json.Unmarshal(must(api.RESTClient().Get().AbsPath(path).Timeout(10*time.Second).DoRaw(ctx)), &declared))
	ttl, interval := declared.Spec.TTL.Duration, declared.Spec.Interval.Duration
	patience := (ttl - interval) / 6 // three tries fit into the ttl, even if all of them time out
	spec := apply.LeaseSpec().WithHolderIdentity(instance).WithLeaseDurationSeconds(int32(ttl.Seconds()))
	lease := apply.Lease(registration+"."+instance, namespace).
		WithLabels(map[string]string{"beatkeeper.dev/registration": registration}).
		WithAnnotations(map[string]string{"beatkeeper.dev/addresses": os.Getenv("BEATKEEPER_ADDRESS")})
	if uid != "" { // a Pod owns its Lease: the address is the Pod's then, and the Lease goes when the Pod goes
		lease.WithOwnerReferences(owner.OwnerReference().WithAPIVersion("v1").WithKind("Pod").WithName(pod).WithUID(uid))
	}
	beat := func(ctx context.Context) (bool, error) {
		ctx, done := context.WithTimeout(ctx, patience) // within it client-go waits as the API server's Retry-After asks
		defer done()
		lease.WithSpec(spec.WithRenewTime(meta.NowMicro())) // to create it, to take it over from an earlier life, or to renew it
		_, err := api.Leases(namespace).Apply(ctx, lease, meta.ApplyOptions{FieldManager: "beat", Force: true})
		if err != nil {
			log.Print("beat failed, and is repeated: ", err)
			if other, unreadable := connect(); unreadable == nil {
				api = other // a connection may have died, a token been revoked, a CA replaced
			}
		}
		return err == nil, nil
	}
	backoff := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 20, Cap: patience / 2}
	repeat := func(ctx context.Context) { _ = backoff.DelayFunc().Until(ctx, true, true, beat) }
	wait.JitterUntilWithContext(ctx, repeat, interval*9/10, 0.2, true)
	must(0, must(connect()).Leases(namespace).Delete(context.Background(), *lease.Name, meta.DeleteOptions{})) // it leaves at once
}
