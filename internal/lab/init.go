package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// This file runs inside the lab host: as its initrd's /init, and below systemd as a unit.

// modules are what the lab host's kernel needs before its root is there to load the rest from. ext4
// asks for the crc32c algorithm by name, which no dependency tells.
func modules() []string {
	return []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "virtio_console", "9p", "9pnet_virtio", "virtio_rng"}
}

// GuestBinary is this program inside the lab host, below systemd too.
const GuestBinary = "/run/lab/banger-lab"

// Inside reports whether this host is a lab host, a throw-away one.
func Inside() bool {
	_, err := os.Stat(GuestBinary)
	return err == nil
}

// Init is PID 1 of the lab host. It returns only when the host cannot be brought up; a panic of the
// kernel, which ends QEMU, follows.
func Init() error {
	for _, m := range []struct{ source, target, fstype string }{
		{"proc", "/proc", "proc"}, {"sys", "/sys", "sysfs"}, {"dev", "/dev", "devtmpfs"},
	} {
		if err := mount(m.source, m.target, m.fstype, 0, ""); err != nil {
			return err
		}
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := await("/dev/vda"); err != nil {
		return err
	}
	if err := mount("/dev/vda", "/sysroot", "ext4", 0, ""); err != nil {
		return err
	}
	systemd := strings.Contains(read("/proc/cmdline"), "lab.systemd")
	if err := enterRoot(systemd); err != nil {
		return err
	}
	if systemd {
		return execSystemd()
	}
	return Guest()
}

// enterRoot moves what is mounted into the root, adds the shares and changes into it.
func enterRoot(systemd bool) error {
	for _, dir := range []string{"dev", "proc", "sys"} {
		if err := mount("/"+dir, "/sysroot/"+dir, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	self, err := os.ReadFile("/init")
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Chdir("/sysroot"), mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return err
	}
	for _, t := range []string{"/run", "/tmp"} {
		if err := mount("tmpfs", t, "tmpfs", unix.MS_NOSUID, "mode=1777"); err != nil {
			return err
		}
	}
	if !systemd { // which mounts these itself
		if err := errors.Join(
			mount("devpts", "/dev/pts", "devpts", 0, "ptmxmode=0666,mode=0620"),
			mount("tmpfs", "/dev/shm", "tmpfs", 0, ""),
			mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""),
		); err != nil {
			return err
		}
	}
	const options = "trans=virtio,version=9p2000.L,msize=512000"
	for _, s := range []struct {
		tag, path string
		flags     uintptr
		options   string
	}{
		{tagSrc, mountSrc, unix.MS_RDONLY, ",cache=loose"},
		{tagImages, mountImages, unix.MS_RDONLY, ",cache=loose"},
		{tagOut, mountOut, 0, ",cache=mmap"},
	} {
		if err := mount(s.tag, s.path, "9p", s.flags, options+s.options); err != nil && (s.tag != tagImages || !errors.Is(err, unix.ENOENT)) {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(GuestBinary), 0o700); err != nil {
		return err
	}
	return os.WriteFile(GuestBinary, self, 0o700)
}

// execSystemd leaves the command to a unit of the distribution's init.
func execSystemd() error {
	const unit = `[Unit]
Description=The lab's command
After=multi-user.target systemd-user-sessions.service
[Service]
Type=exec
ExecStart=` + GuestBinary + ` guest
KillMode=process
StandardOutput=null
StandardError=journal+console
[Install]
WantedBy=multi-user.target
`
	const dir = "/run/systemd/system"
	if err := errors.Join(
		os.MkdirAll(dir+"/multi-user.target.wants", 0o755),
		os.WriteFile(dir+"/lab-command.service", []byte(unit), 0o644),
		os.Symlink("../lab-command.service", dir+"/multi-user.target.wants/lab-command.service"),
	); err != nil {
		return err
	}
	return unix.Exec("/lib/systemd/systemd", []string{"/lib/systemd/systemd"}, []string{"container="})
}

// Guest brings up what the command may expect, runs it and powers the lab host off.
func Guest() error {
	ports, err := openPorts()
	if err != nil {
		return err
	}
	control := ports[portControl]
	words := bufio.NewReader(control)
	var o order
	line, err := words.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &o)
	}
	if err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	var saying sync.Mutex
	say := func(w toCaller) {
		saying.Lock()
		defer saying.Unlock()
		_ = json.NewEncoder(control).Encode(w) // a caller that has gone takes us with it
	}
	if err := settle(); err != nil {
		say(toCaller{Fault: err.Error()})
	} else if status, err := run(o, ports, words, say); err != nil {
		say(toCaller{Fault: err.Error()})
	} else {
		for _, name := range []string{portOut, portErr} {
			_, _ = ports[name].WriteString(endOfStream)
		}
		say(toCaller{Exit: &status})
	}
	unix.Sync()
	_ = unix.Unmount(mountScratch, 0)
	_ = unix.Unmount(mountOut, 0)
	_ = unix.Unmount("/", unix.MNT_DETACH)
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // QEMU's -no-reboot turns it into an end
}

// run executes the order and returns its status. As PID 1 it also reaps what others leave behind.
func run(o order, ports map[string]*os.File, words *bufio.Reader, say func(toCaller)) (int, error) {
	env := append([]string{"PATH=" + guestPath, "HOME=/root", "TERM=xterm-256color", "LANG=C.UTF-8", "USER=root"}, o.Env...)
	path, err := lookPath(o.Argv[0])
	if err != nil {
		return 0, err
	}
	attr := &os.ProcAttr{Dir: o.Dir, Env: env, Sys: &syscall.SysProcAttr{Setsid: true}}
	var drain sync.WaitGroup
	var terminal *os.File
	if o.TTY {
		master, slave, err := pty.Open()
		if err != nil {
			return 0, err
		}
		terminal = master
		_ = pty.Setsize(master, &pty.Winsize{Rows: o.Rows, Cols: o.Cols})
		attr.Files = []*os.File{slave, slave, slave}
		attr.Sys.Setctty = true
		defer slave.Close()
		go func() { _, _ = io.Copy(master, ports[portIn]) }()
		drain.Go(func() { _, _ = io.Copy(ports[portOut], master) })
	} else {
		if attr.Files, err = pipes(ports, &drain, o.Stdin); err != nil {
			return 0, err
		}
	}
	say(toCaller{Begun: true})
	p, err := os.StartProcess(path, o.Argv, attr)
	if err != nil {
		return 0, err
	}
	for _, f := range attr.Files {
		_ = f.Close() // the command has its own
	}
	go obey(words, p.Pid, terminal)
	go func() {
		for range time.Tick(sayAlive) {
			say(toCaller{Alive: true})
		}
	}()
	status, err := reap(p.Pid)
	if terminal == nil {
		waitBriefly(&drain)
	}
	return status, err
}

// pipes connects the command to the ports through pipes: a port has no end of file, a pipe does.
func pipes(ports map[string]*os.File, drain *sync.WaitGroup, stdin bool) ([]*os.File, error) {
	in, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	if stdin {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		in = r
		go func() { _, _ = io.Copy(w, ports[portIn]); _ = w.Close() }()
	}
	files := []*os.File{in}
	for _, name := range []string{portOut, portErr} {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		files = append(files, w)
		drain.Go(func() { _, _ = io.Copy(ports[name], r) })
	}
	return files, nil
}

// waitBriefly gives the streams time to empty. A process that the command left behind may hold them
// open for ever, and is not waited for.
func waitBriefly(drain *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { drain.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
	}
}

// obey passes the caller's words on until the caller is gone, which ends the lab host.
func obey(words *bufio.Reader, pid int, terminal *os.File) {
	dec := json.NewDecoder(words)
	for {
		var w toHost
		if err := dec.Decode(&w); err != nil {
			_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
			return
		}
		if w.Signal > 0 {
			_ = unix.Kill(-pid, syscall.Signal(w.Signal))
		}
		if terminal != nil && w.Rows > 0 {
			_ = pty.Setsize(terminal, &pty.Winsize{Rows: w.Rows, Cols: w.Cols})
		}
	}
}

// reap collects every child until pid has ended. Below systemd only our own children come by.
func reap(pid int) (int, error) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case got == pid && ws.Exited():
			return ws.ExitStatus(), nil
		case got == pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		}
	}
}

// openPorts finds the serial ports by the names that QEMU gave them.
func openPorts() (map[string]*os.File, error) {
	out := map[string]*os.File{}
	deadline := time.Now().Add(10 * time.Second)
	for len(out) < 4 {
		dirs, err := filepath.Glob("/sys/class/virtio-ports/vport*")
		if err != nil {
			return nil, err
		}
		for _, d := range dirs {
			name := strings.TrimSpace(read(d + "/name"))
			if name == "" || out[name] != nil {
				continue
			}
			f, err := os.OpenFile("/dev/"+filepath.Base(d), os.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			out[name] = f
		}
		if len(out) < 4 && time.Now().After(deadline) {
			return nil, fmt.Errorf("only %d of the serial ports appeared", len(out))
		}
		if len(out) < 4 {
			pause()
		}
	}
	return out, nil
}

func loadModules(list string) error {
	f, err := os.Open(list)
	if err != nil {
		return err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		m, err := os.Open(sc.Text())
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(m.Fd()), "", 0)
		_ = m.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", sc.Text(), err)
		}
	}
	return nil
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if flags&unix.MS_MOVE == 0 {
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

func await(path string) error {
	for range 2000 {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		pause()
	}
	return fmt.Errorf("%s did not appear", path)
}

// pause is the step of a bounded wait for the kernel to make a device.
func pause() { <-time.After(5 * time.Millisecond) }

func read(path string) string {
	b, _ := os.ReadFile(path) // absent is empty
	return string(b)
}
