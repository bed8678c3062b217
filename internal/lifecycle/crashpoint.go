//go:build crashpoint

// This file is in builds for the lab only. There a daemon kills itself where it is told to, so that the next one can be
// seen to put things right.

package lifecycle

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/event"
	"banger/internal/op"
	"banger/internal/vm"
)

// crashDir is the environment variable that names a directory: each point that is passed is a line in its file "passed",
// and the one that the file "kill" names, with its number among equal ones, is where the daemon dies. It renames
// "kill" to "killed" then, so that the next daemon lives. The file "kinds" lists all kinds of operations. What cannot be
// read or written there is a panic: a walk that misses points proves nothing.
const crashDir = "BANGER_CRASHPOINTS"

// around does a labelled effect, and dies when it is done and nobody has heard of it. What is done before an effect is the
// effect before it, or nothing.
func around(label string, do func() error) error {
	err := do()
	if err == nil {
		point(label)
	}
	return err
}

func point(name string) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		return
	}
	f, err := os.OpenFile(filepath.Join(dir, "passed"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	must(err)
	defer f.Close()
	must(unix.Flock(int(f.Fd()), unix.LOCK_EX)) // steps run side by side
	nth := 1
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if lines.Text() == name {
			nth++
		}
	}
	_, err = fmt.Fprintln(f, name)
	must(err)
	chosen, err := os.ReadFile(filepath.Join(dir, "kill"))
	if err != nil || string(bytes.TrimSpace(chosen)) != name+" "+strconv.Itoa(nth) {
		return
	}
	must(os.Rename(filepath.Join(dir, "kill"), filepath.Join(dir, "killed")))
	must(unix.Kill(os.Getpid(), unix.SIGKILL))
	select {} // until the signal is here
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// crashing returns a store whose commits are points. It embeds none: a method that is new has to say whether it writes.
func crashing(s Store) Store {
	if dir := os.Getenv(crashDir); dir != "" {
		var kinds []string
		for kind := range verbs {
			kinds = append(kinds, kind)
		}
		slices.Sort(kinds)
		must(os.WriteFile(filepath.Join(dir, "kinds"), []byte(strings.Join(kinds, "\n")+"\n"), 0o600))
	}
	return deadly{s}
}

type deadly struct{ store Store }

func (d deadly) Create(ctx context.Context, v vm.VM, pick LeasePicker, hold func(vm.VM) []vm.Record, o op.Operation) (made vm.VM, err error) {
	err = around("commit intent", func() error {
		made, err = d.store.Create(ctx, v, pick, hold, o)
		return err
	})
	return made, err
}

func (d deadly) Commit(ctx context.Context, c vm.Change) error {
	label := "commit " + string(c.VM.State)
	if c.Remove {
		label = "commit removal"
	}
	return around(label, func() error { return d.store.Commit(ctx, c) })
}

func (d deadly) Relet(ctx context.Context, c vm.Change, pick LeasePicker) (let vm.VM, err error) {
	err = around("commit "+string(c.VM.State), func() error {
		let, err = d.store.Relet(ctx, c, pick)
		return err
	})
	return let, err
}

func (d deadly) SaveOperation(ctx context.Context, o op.Operation, news ...event.Event) error {
	return around("commit operation "+string(o.State), func() error { return d.store.SaveOperation(ctx, o, news...) })
}

func (d deadly) Note(ctx context.Context, news ...event.Event) error {
	return around("commit news", func() error { return d.store.Note(ctx, news...) })
}

func (d deadly) VMs(ctx context.Context) ([]vm.VM, error) { return d.store.VMs(ctx) }

func (d deadly) Records(ctx context.Context, id vm.ID) ([]vm.Record, error) {
	return d.store.Records(ctx, id)
}
