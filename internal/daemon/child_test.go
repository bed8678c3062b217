package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banger/internal/host/handover"
)

// What this test's program is when it runs as a child of itself.
const (
	childSocket    = "BANGER_TEST_SOCKET"    // a daemon's listener on this path
	childActivated = "BANGER_TEST_ACTIVATED" // started as systemd starts it
	childBuild     = "BANGER_TEST_BUILD"     // the answer to --build
)

// quick keeps the race detector from holding every child for a second at its end.
const quick = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "--build" {
		fmt.Println(os.Getenv(childBuild)) //nolint:forbidigo // that is what the program prints
		return
	}
	if path := os.Getenv(childSocket); path != "" {
		if err := listener(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // this is a main
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// listener is a daemon reduced to its listener. It takes nobody in until a line on standard input has it
// execute itself anew, then answers everybody until standard input ends.
func listener(path string) error {
	if os.Getenv(childActivated) != "" {
		// systemd knows the process that it starts.
		if err := errors.Join(os.Unsetenv(childActivated), os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))); err != nil {
			return err
		}
	}
	_, executed := os.LookupEnv(handedDown)
	s, err := listen(context.Background(), path, "no such group")
	if err != nil {
		return err
	}
	sockets, err := handover.Take()
	if err != nil {
		return err
	}
	if !executed {
		fmt.Fprintln(os.Stdout, "listening", s.inherited)
		in := make([]byte, 1) // not a buffer's worth: the rest is the next build's
		if _, err := os.Stdin.Read(in); err != nil {
			return err
		}
		if _, err := sockets.ListenPacket(context.Background(), "asked", net.ListenConfig{}, "127.0.0.1:0"); err != nil {
			return err
		}
		f, err := s.handOver()
		if err != nil {
			return err
		}
		others, err := sockets.HandOver()
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		return reexec(f, s.ours, others)
	}
	if sockets.PacketConn("asked") == nil {
		return errors.New("a socket that was handed over is not there")
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the test lets go
		_ = s.Close()
	}()
	for {
		c, err := s.Accept()
		if err != nil {
			return nil //nolint:nilerr // closed above
		}
		var left []string
		for _, v := range os.Environ() {
			if strings.HasPrefix(v, "BANGER_LISTEN_") || strings.HasPrefix(v, "BANGER_HANDED_") || strings.HasPrefix(v, "LISTEN_FDS") {
				left = append(left, v)
			}
		}
		fmt.Fprintf(c, "pid %d inherited %v left %v", os.Getpid(), s.inherited, left)
		_ = c.Close()
	}
}

// child is a running listener.
type child struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	says string // its first line
	stop func()
}

func start(t *testing.T, socket string, env []string, files ...*os.File) *child {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(append(os.Environ(), childSocket+"="+socket, quick), env...)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	c.stop = sync.OnceFunc(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("the child:", err)
		}
		cancel()
	})
	t.Cleanup(c.stop)
	if c.says, err = c.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return c
}

// execute has it execute itself.
func (c *child) execute() {
	c.t.Helper()
	if _, err := c.in.Write([]byte("x")); err != nil {
		c.t.Fatal(err)
	}
}
