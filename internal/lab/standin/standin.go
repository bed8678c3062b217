// Package standin takes Firecracker's place where a thousand VMs are to be had on one small machine: a
// process that answers the API and runs the real agent behind a vsock device, and no guest. To the daemon
// it is a Firecracker whose guests boot at once.
package standin

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"banger/internal/guest/guesttest"
)

// Name is the program's, by which an executable that holds it knows what it is to be.
const Name = "firecracker"

// Main is Firecracker's, as far as the daemon runs it: in the machine's directory, with the paths in it
// relative to that. It returns the exit status.
func Main(args []string) int {
	debug.SetGCPercent(20) // there will be many
	f := flag.NewFlagSet(Name, flag.ContinueOnError)
	version := f.Bool("version", false, "")
	id := f.String("id", "", "")
	socket := f.String("api-sock", "", "")
	for _, ignored := range []string{"config-file", "log-path", "level"} {
		f.String(ignored, "", "")
	}
	f.Bool("show-level", false, "")
	if err := f.Parse(args); err != nil {
		return 2
	}
	if *version {
		if _, err := fmt.Fprintln(os.Stdout, "Firecracker v1.12.1"); err != nil {
			return 1
		}
		return 0
	}
	if err := run(*id, *socket); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// run lives until the guest is asked to shut down, or a signal ends the process.
func run(id, socket string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // whoever forgets it
	defer cancel()
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	api := &http.Server{Handler: answer(id), ReadHeaderTimeout: time.Second}
	defer func() { _ = api.Close() }() // the process ends
	go api.Serve(l)                    //nolint:errcheck // ends with Close
	g, err := guesttest.Boot(ctx, ".", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	go vcpu(ctx)
	select {
	case <-g.Ended:
	case <-ctx.Done():
	}
	return g.Stop()
}

// answer describes the machine, whatever is asked.
func answer(id string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		info := map[string]string{"app_name": "Firecracker", "id": id, "state": "Running", "vmm_version": "1.12.1"}
		if json.NewEncoder(w).Encode(info) != nil {
			return // the daemon asks again
		}
	})
}

// vcpu is a thread named as Firecracker names those of vCPUs. It has nothing to do until ctx ends.
func vcpu(ctx context.Context) {
	runtime.LockOSThread()
	if os.WriteFile("/proc/thread-self/comm", []byte("fc_vcpu 0"), 0) == nil {
		<-ctx.Done()
	}
}
