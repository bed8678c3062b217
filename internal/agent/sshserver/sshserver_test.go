package sshserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"banger/internal/agent/sshserver"
	"banger/internal/sshkey"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guest is a root file system whose only account is that of who runs the test.
type guest struct {
	t      *testing.T
	root   string
	home   string // below root
	server *sshserver.Server
	host   sshkey.Pair
	key    sshkey.Pair
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{t: t, root: t.TempDir()}
	g.home = filepath.Join(g.root, "home")
	g.host, g.key = pair(t), pair(t)
	g.write("etc/ssh/ssh_host_ed25519_key", g.host.Private)
	g.write("etc/passwd", fmt.Sprintf("root:x:0:0:root:/root:/bin/sh\nme:x:%d:%d::/home:/bin/sh\n", os.Getuid(), os.Getgid()))
	g.write("home/.ssh/authorized_keys", "# mine\n"+g.key.Public+"\n")
	g.server = &sshserver.Server{
		Root: g.root, SFTP: []string{"/bin/echo", "this is sftp"}, Start: (*exec.Cmd).Start, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	return g
}

func pair(t *testing.T) sshkey.Pair {
	t.Helper()
	p, err := sshkey.New("test")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (g *guest) write(name, text string) {
	g.t.Helper()
	path := filepath.Join(g.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		g.t.Fatal(err)
	}
}

// connect returns a connection that the server serves until the test ends.
func (g *guest) connect() net.Conn {
	g.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		g.t.Fatal(err)
	}
	serve, err := g.server.Open()
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(ctx, there)
	}()
	g.t.Cleanup(func() {
		_ = here.Close()
		<-done // by itself, since its client has gone
		cancel()
	})
	return here
}

func (g *guest) login(user string, key sshkey.Pair) (*ssh.Client, error) {
	g.t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(key.Private))
	if err != nil {
		g.t.Fatal(err)
	}
	host, err := ssh.ParsePrivateKey([]byte(g.host.Private))
	if err != nil {
		g.t.Fatal(err)
	}
	c, channels, requests, err := ssh.NewClientConn(g.connect(), "guest", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(host.PublicKey()), Timeout: 10 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	client := ssh.NewClient(c, channels, requests)
	g.t.Cleanup(func() { _ = client.Close() })
	return client, nil
}

// client is the account's owner, logged in.
func (g *guest) client() *ssh.Client {
	g.t.Helper()
	c, err := g.login("me", g.key)
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}

func (g *guest) session(c *ssh.Client) *ssh.Session {
	g.t.Helper()
	s, err := c.NewSession()
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = s.Close() })
	return s
}

// run runs a command and returns what it says.
func (g *guest) run(c *ssh.Client, command string) string {
	g.t.Helper()
	out, err := g.session(c).CombinedOutput(command)
	if err != nil {
		g.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// status is what the command ended with.
func status(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*ssh.ExitError](err)
	if !ok {
		t.Fatal(err)
	}
	return e.ExitStatus()
}

func TestACommand(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	s := g.session(c)
	var out, complaints bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader("question"), &out, &complaints
	if err := s.Run("cat; echo no >&2; exit 3"); status(t, err) != 3 {
		t.Errorf("it ended with %v", err)
	}
	if out.String() != "question" || complaints.String() != "no\n" {
		t.Errorf("it said %q, and %q", &out, &complaints)
	}
}

func TestStatuses(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	for command, want := range map[string]int{"true": 0, "false": 1, "exit 255": 255, "kill -KILL $$": 137, "kill -TERM $$": 143, "/nonexistent": 127} {
		if got := status(t, g.session(c).Run(command)); got != want {
			t.Errorf("%s: status %d, want %d", command, got, want)
		}
	}
}

func TestAShellThatCannotRun(t *testing.T) {
	g := newGuest(t)
	g.write("etc/passwd", fmt.Sprintf("me:x:%d:%d::/home:/bin/nosuch\n", os.Getuid(), os.Getgid()))
	s := g.session(g.client())
	var complaints bytes.Buffer
	s.Stderr = &complaints
	err := s.Run("true")
	if status(t, err) != 126 || complaints.String() != "fork/exec /bin/nosuch: no such file or directory\n" {
		t.Errorf("got %v: %q", err, &complaints)
	}
}

// Much of it, and both ways at once, ends with its last byte.
func TestManyBytes(t *testing.T) {
	g := newGuest(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	s := g.session(g.client())
	s.Stdin = bytes.NewReader(sent)
	got, err := s.Output("cat")
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
	}
}

// A command's status waits for all that was given its output, as `cmd > >(tee log)` needs it.
func TestOutputOfWhatACommandLeftBehind(t *testing.T) {
	g := newGuest(t)
	fifo := filepath.Join(g.root, "fifo")
	if got := g.run(g.client(), "mkfifo "+fifo+"; { cat "+fifo+"; } & exec 3>"+fifo+"; echo late >&3; exit 0"); got != "late\n" {
		t.Errorf("it said %q", got)
	}
}

func TestWhoMayComeIn(t *testing.T) {
	other := pair(t)
	for name, c := range map[string]struct {
		user  string
		keys  string // authorized ones; K stands for the key that is tried
		comes bool
	}{
		"the key":                  {"me", "K\n", true},
		"the last of them":         {"me", "# a\n\nnonsense\n" + other.Public + "\nK", true},
		"another":                  {"me", other.Public + "\n", false},
		"none":                     {"me", "", false},
		"held to a command":        {"me", `command="true" K` + "\n", false},
		"from nowhere else":        {"me", `from="10.0.0.1" K` + "\n", false},
		"nobody of this name":      {"you", "K\n", false},
		"a name with a colon":      {"me:x", "K\n", false},
		"root has keys of its own": {"root", "K\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			g.write("home/.ssh/authorized_keys", strings.ReplaceAll(c.keys, "K", g.key.Public))
			_, err := g.login(c.user, g.key)
			if (err == nil) != c.comes {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhatIsInThePlaceOfTheKeys(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a pipe":      func(p string) error { return exec.Command("mkfifo", p).Run() },
		"a directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"too much":    func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("#\n"), 1<<20), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			path := filepath.Join(g.home, ".ssh/authorized_keys")
			if err := errors.Join(os.Remove(path), make(path)); err != nil {
				t.Fatal(err)
			}
			if _, err := g.login("me", g.key); err == nil {
				t.Error("it lets in")
			}
		})
	}
}

func TestWithoutAHostKeyNobodyIsServed(t *testing.T) {
	g := newGuest(t)
	g.write("etc/ssh/ssh_host_ed25519_key", "no key")
	if _, err := g.server.Open(); err == nil || !strings.HasPrefix(err.Error(), "read the host key /etc/ssh/ssh_host_ed25519_key: ") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	g := newGuest(t)
	g.write("etc/environment", "# words\nexport A=\"one two\"\nB='x'\n  C=3\nHOME=/elsewhere\nnot a variable\nNUL=a\x00b\nLONG="+strings.Repeat("x", 8<<10)+"\n")
	g.write("etc/default/locale", "LANG=de_DE.UTF-8\n")
	t.Setenv("MARK", "the agent's own")
	c := g.client()
	s := g.session(c)
	if err := errors.Join(s.Setenv("LC_ALL", "C"), s.Setenv("USER", "root")); err != nil {
		t.Fatal(err)
	}
	if err := s.Setenv("A=B", "C"); err == nil {
		t.Error("a name holds a =")
	}
	out, err := s.Output(`echo "$A|$B|$C|$NUL$LONG|$LANG|$LC_ALL|$USER|$LOGNAME|$SHELL|$HOME|$SSH_CONNECTION"`)
	if want := "one two|x|3||de_DE.UTF-8|C|me|me|/bin/sh|/home|127.0.0.1 0 127.0.0.1 22\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	if got := g.run(c, "echo $MARK"); got != "\n" {
		t.Errorf("it has the agent's own environment: %s", got)
	}
}

func TestATerminal(t *testing.T) {
	g := newGuest(t)
	g.write("etc/motd", "welcome\n")
	s := g.session(g.client())
	if err := s.RequestPty("vt220", 33, 99, ssh.TerminalModes{ssh.VERASE: 8, ssh.IXON: 0, ssh.VSTOP: 255, ssh.TTY_OP_OSPEED: 9600}); err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	said := &reader{t: t, from: out}
	said.until("welcome\r\n")
	fmt.Fprintln(in, `echo "[$(stty size)] [$TERM] [$0] [$(stty -a | grep -o ' iutf8')] [$(tty | cut -c1-8)]"`)
	said.until("[33 99] [vt220] [-sh] [ iutf8] [/dev/pts]\r\n")
	fmt.Fprintln(in, `echo "[$(stty -a | tr -d '\n' | grep -o ' erase = [^;]*; \| stop = [^;]*;\|-ixon' | tr '\n' ' ')]"`)
	said.until("[ erase = ^H;   stop = <undef>; -ixon ]\r\n")
	if err := s.WindowChange(44, 111); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, `until [ "$(stty size)" = "44 111" ]; do :; done; echo resi""zed`)
	said.until("resized\r\n")
	fmt.Fprintln(in, "PS1='rea''dy '; echo run''ning; while :; do :; done")
	said.until("running\r\n")
	fmt.Fprint(in, "\x03")
	said.until("ready ")
	fmt.Fprintln(in, "sleep 1001 & exit 5") // which still has the terminal open
	if err := s.Wait(); status(t, err) != 5 {
		t.Errorf("it ended with %v", err)
	}
}

// What a command says last is told, though whoever reads it may be late, and though somebody holds the terminal open.
func TestLastWordsOnATerminal(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	for range 20 {
		s := g.session(c)
		if err := s.RequestPty("vt220", 24, 80, ssh.TerminalModes{}); err != nil {
			t.Fatal(err)
		}
		out, err := s.Output("sleep 5 & head -c 20000 /dev/zero | tr '\\0' x; echo end")
		if err != nil || len(out) != 20005 || !bytes.HasSuffix(out, []byte("xend\r\n")) {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	}
}

// A background process on a terminal whose shell has ended hears of the hang-up.
func TestHangUp(t *testing.T) {
	for name, hangUp := range map[string]func(c *ssh.Client, s *ssh.Session) error{
		"the channel":    func(_ *ssh.Client, s *ssh.Session) error { return s.Close() },
		"the connection": func(c *ssh.Client, _ *ssh.Session) error { return c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			c := g.client()
			s := g.session(c)
			if err := s.RequestPty("vt220", 24, 80, ssh.TerminalModes{}); err != nil {
				t.Fatal(err)
			}
			out, err := s.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			gone := filepath.Join(g.root, "gone")
			// It goes on for a while without its terminal, and not for ever where it is never told.
			if err := s.Start("trap 'touch " + gone + "; exit' HUP; echo here; n=0; while [ $n -lt 100000 ]; do n=$((n+1)); read x || :; done"); err != nil {
				t.Fatal(err)
			}
			(&reader{t: t, from: out}).until("here\r\n")
			if err := hangUp(c, s); err != nil {
				t.Fatal(err)
			}
			awaitFile(t, gone)
		})
	}
}

// A command without a terminal ends by its next word, when nobody hears it any more.
func TestAClientThatGoes(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	s := g.session(c)
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(g.root, "gone")
	if err := s.Start("trap 'touch " + gone + "; exit' PIPE; while :; do echo word; done"); err != nil {
		t.Fatal(err)
	}
	(&reader{t: t, from: out}).until("word\n")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, gone)
}

func TestASignal(t *testing.T) {
	g := newGuest(t)
	s := g.session(g.client())
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("trap 'exit 9' USR1; echo here; while :; do :; done"); err != nil {
		t.Fatal(err)
	}
	(&reader{t: t, from: out}).until("here\n")
	if err := s.Signal(ssh.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); status(t, err) != 9 {
		t.Errorf("it ended with %v", err)
	}
}

func TestASubsystem(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	s := g.session(c)
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestSubsystem("sftp"); err != nil {
		t.Fatal(err)
	}
	(&reader{t: t, from: out}).until("this is sftp\n"[len("this is sftp")-4:])
	if err := g.session(c).RequestSubsystem("nosuch"); err == nil {
		t.Error("there is a subsystem nosuch")
	}
}

func TestBounds(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	for i := range 64 {
		if _, _, err := c.OpenChannel("session", nil); err != nil {
			t.Fatalf("channel %d: %v", i, err)
		}
	}
	if _, _, err := c.OpenChannel("session", nil); err == nil || !strings.Contains(err.Error(), "64 channels are open already") {
		t.Errorf("got %v", err)
	}
	if _, _, err := g.client().OpenChannel("x11", nil); err == nil {
		t.Error("it knows x11")
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	g := newGuest(t)
	c := g.client()
	for _, r := range []struct{ kind, payload string }{
		{"env", "x"},
		{"pty-req", "\x00\x00\x00\x01x"},
		{"window-change", "\x00\x00\x00\x01"},
		{"signal", "x"},
		{"signal", "\x00\x00\x00\x04TERM"},
		{"exec", "x"},
		{"exec", "\x00\x00\x00\x01\x00"},
		{"subsystem", "x"},
		{"x11-req", ""},
	} {
		channel, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		go ssh.DiscardRequests(requests)
		if ok, err := channel.SendRequest(r.kind, true, []byte(r.payload)); ok || err != nil {
			t.Errorf("%s %q: %v, %v", r.kind, r.payload, ok, err)
		}
		if err := channel.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, kind := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "cancel-tcpip-forward", "keepalive@openssh.com"} {
		if ok, _, err := c.SendRequest(kind, true, []byte("x")); ok || err != nil {
			t.Errorf("%s: %v, %v", kind, ok, err)
		}
	}
	if g.run(c, "echo on") != "on\n" {
		t.Error("it is of no use any more")
	}
}

// reader reads until a text has come.
type reader struct {
	t    *testing.T
	from io.Reader
	all  []byte
}

func (r *reader) until(text string) string {
	r.t.Helper()
	b := make([]byte, 1)
	for !bytes.HasSuffix(r.all, []byte(text)) {
		if _, err := io.ReadFull(r.from, b); err != nil {
			r.t.Fatalf("%v instead of %s, after %q", err, strconv.Quote(text), r.all)
		}
		r.all = append(r.all, b...)
	}
	return string(r.all)
}

func awaitFile(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s", path)
		}
		<-time.After(time.Millisecond)
	}
}
