package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/cli"
	"banger/internal/cli/app"
	"banger/internal/cli/term"
	"banger/internal/fault"
	"banger/internal/vm"
)

func setPorts(v *api.VM, text string) error {
	was := vm.VM{Settings: v.Settings}
	doors, err := vm.DoorsOf(was).Alter(text)
	if err != nil {
		return err
	}
	v.Settings = map[string]string{vm.SettingPorts: doors.String()}
	return nil
}

// ports serves doors, the second of each VM being one that could not be opened, and what listens in the guests. A guest's
// port 81 is closed, all others answer in capitals.
func (f *fake) ports(mux *http.ServeMux, handle func(pattern string, h func(r *http.Request) (any, error))) {
	handle("GET /v1/vms/{vm}/ports", func(r *http.Request) (any, error) {
		v, err := f.find(r.PathValue("vm"))
		if err != nil {
			return nil, err
		}
		out := api.Ports{Doors: []api.Door{}, Listening: []api.GuestListener{}}
		for i, d := range vm.DoorsOf(vm.VM{Settings: v.Settings}) {
			x := api.Door{Spec: d.String(), Address: d.Listen.Addr().String(), HostPort: int(d.Listen.Port()), GuestPort: int(d.Port), State: api.DoorOpen}
			if i == 1 {
				x.State, x.Error = api.DoorFailed, fault.New(fault.InUse, "process 7 (httpd) listens there")
			}
			out.Doors = append(out.Doors, x)
		}
		if v.State == vm.Running {
			out.Listening = []api.GuestListener{
				{Address: "::", Port: 80, PID: 123, Program: "httpd\x1b[2J", Door: "127.0.0.1:8080"}, {Address: "127.0.0.1", Port: 5432},
			}
			out.More = 3
		} else {
			out.Error = fault.New(fault.Incompatible, "its agent is too old to say who listens").WithHint("stop and start the VM")
		}
		return out, nil
	})
	mux.HandleFunc("GET /v1/vms/{vm}/dial", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("port") == "81" {
			reply(w, nil, fault.New(fault.Unavailable, "the guest answered: connection refused"))
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", api.Stream)
		_ = rw.Flush()
		if text, err := io.ReadAll(rw); err == nil {
			_, _ = io.WriteString(conn, strings.ToUpper(string(text)))
		}
	})
}

// TestForward leads connections into a guest until it is ended.
func TestForward(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "d.sock")
	stop, err := serve(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, v := range []string{"HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"} {
		t.Setenv(v, t.TempDir())
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var said bytes.Buffer
	ended := make(chan int, 1)
	build := buildinfo.Info{Version: "1.0.0", Commit: "abcdef", Stamp: 100}
	go func() {
		a := &app.App{IO: &term.IO{In: strings.NewReader(""), Out: in, Err: &said}, Build: build}
		ended <- cli.Run(ctx, a, []string{"--socket", socket, "vm", "forward", "dev", ":80", "[::1]:0:81"})
		_ = in.Close()
	}()
	var open, shut string
	if _, err := fmt.Fscanf(out, "%s leads to port 80 of dev\n", &open); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanf(out, "%s leads to port 81 of dev\n", &shut); err != nil || !strings.HasPrefix(shut, "[::1]:") {
		t.Fatal(shut, err)
	}
	var why bytes.Buffer
	a := &app.App{IO: &term.IO{In: strings.NewReader(""), Out: io.Discard, Err: &why}, Build: build}
	if status := cli.Run(t.Context(), a, []string{"--socket", socket, "vm", "forward", "dev", open + ":80"}); status != 7 {
		t.Errorf("a port that is taken ends it with %d", status)
	}
	if want := fmt.Sprintf("process %d (cli.test) listens there", os.Getpid()); !strings.Contains(why.String(), want) {
		t.Errorf("it said %s, want %s", why.String(), want)
	}
	c, err := net.Dial("tcp", open)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if text, err := io.ReadAll(c); string(text) != "HELLO" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	refused, err := net.Dial("tcp", shut)
	if err == nil {
		defer refused.Close()
		_, err = refused.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a port that is closed ends with %v", err)
	}
	held, err := net.Dial("tcp", open)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	cancel()
	if status := <-ended; status != 0 {
		t.Errorf("it ends with %d", status)
	}
	if _, err := held.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives it")
	}
	if text := said.String(); !strings.Contains(text, "port 81 of dev: the guest answered: connection refused") || !strings.Contains(text, "Ctrl-C ends it") {
		t.Errorf("it said\n%s", text)
	}
}
