package bench

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"banger/internal/api"
	"banger/internal/client"
	"banger/internal/host/proc"
	"banger/internal/op"
	"banger/internal/vm"
)

// Crowd measures creates of many VMs at once, beside as many bare boots at once, on the host that it runs on: the
// lab's.
type Crowd struct {
	Image  string
	Memory string // of each guest, such as 256M
	Guests int    // at least 1
	Runs   int    // at least 1
	Work   string // directory on the file system of the state directory
	Log    io.Writer
}

// Crowded is what one run saw. It travels as JSON.
type Crowded struct {
	Image  string       `json:"image"`
	Guests int          `json:"guests"`
	Rounds []CrowdRound `json:"rounds"`
}

// CrowdRound is each of them once, in nanoseconds until the last guest was ready.
type CrowdRound struct {
	Bare time.Duration `json:"bare"`
	Cold CrowdCreates  `json:"cold"`
	Warm CrowdCreates  `json:"warm"`
}

// CrowdCreates are creates at once.
type CrowdCreates struct {
	Operations []op.Operation `json:"operations"`
	DaemonCPU  time.Duration  `json:"daemon_cpu"` // nanoseconds
}

// ready is the time from the first request's arrival at the daemon until the last operation had ended.
func (c CrowdCreates) ready() time.Duration {
	if len(c.Operations) == 0 {
		return 0
	}
	begun, ended := c.Operations[0].Created, c.Operations[0].Ended
	for _, o := range c.Operations {
		if o.Created.Before(begun) {
			begun = o.Created
		}
		if o.Ended.After(ended) {
			ended = o.Ended
		}
	}
	return ended.Sub(begun)
}

// crowd is a run.
type crowd struct {
	run
	guests int
	client *client.Client
	memory int64
	floors []bare
}

// Run measures creates and bare boots in turn. All that it makes it takes down again, but not when it fails.
func (c Crowd) Run(ctx context.Context) (Crowded, error) {
	m := Crowded{Image: c.Image, Guests: c.Guests}
	r := &crowd{run: run{Bench: Bench{Image: c.Image, Memory: c.Memory, Work: c.Work, Log: c.Log}}, guests: c.Guests}
	if err := r.prepare(ctx); err != nil {
		return m, err
	}
	defer r.client.CloseIdle()
	for i := range c.Runs {
		var round CrowdRound
		err := r.insist(ctx, pattern, func() (err error) {
			round, err = r.round(ctx, i%2 == 1)
			return err
		})
		if err != nil {
			return m, err
		}
		fmt.Fprintf(c.Log, "round %d of %d: %d bare boots %s, cold creates %s (%.3f), warm creates %s (%.3f)\n", i+1, c.Runs, c.Guests,
			round.Bare.Round(time.Millisecond), round.Cold.ready().Round(time.Millisecond), float64(round.Cold.ready())/float64(round.Bare),
			round.Warm.ready().Round(time.Millisecond), float64(round.Warm.ready())/float64(round.Bare))
		m.Rounds = append(m.Rounds, round)
	}
	return m, sweep(ctx, "")
}

// prepare makes a pattern for each bare boot, boots those once unmeasured, and has warm creates prepared.
func (r *crowd) prepare(ctx context.Context) (err error) {
	if err := banger(ctx, &r.idle, "status"); err != nil {
		return err
	}
	r.layout, r.client = vm.Layout{State: r.idle.StateDir}, client.New(r.idle.Socket)
	if r.memory, err = vm.ParseSize(r.Memory); err != nil {
		return err
	}
	return r.insist(ctx, "", func() error {
		made, err := r.create(ctx, pattern, true)
		if err != nil {
			return err
		}
		if err := banger(ctx, nil, append([]string{"vm", "kill"}, r.names(pattern)...)...); err != nil {
			return err
		}
		r.floors = nil
		for _, o := range made.Operations {
			floor, err := newBare(r.layout, r.idle.Instance, vm.ID(o.Subject), r.Work)
			if err != nil {
				return err
			}
			r.floors = append(r.floors, floor)
		}
		return warm(ctx, r.layout, r.Image, r.Memory)
	})
}

// round measures each once. Which comes first alternates.
func (r *crowd) round(ctx context.Context, bareFirst bool) (m CrowdRound, err error) {
	boot := func() error {
		unix.Sync() // nobody pays for what was written before
		m.Bare, err = bootAll(ctx, r.floors)
		return err
	}
	creates := func(name string, cold bool, into *CrowdCreates) error {
		unix.Sync()
		if *into, err = r.create(ctx, name, cold); err != nil {
			return err
		}
		return remove(ctx, r.names(name)...)
	}
	if bareFirst {
		if err := boot(); err != nil {
			return m, err
		}
	}
	if err := creates("bench-cold", true, &m.Cold); err != nil {
		return m, err
	}
	if !bareFirst {
		if err := boot(); err != nil {
			return m, err
		}
	}
	return m, creates("bench-warm", false, &m.Warm)
}

// names of VMs that begin with a word.
func (r *crowd) names(word string) []string {
	all := make([]string, r.guests)
	for i := range all {
		all[i] = word + "-" + strconv.Itoa(i)
	}
	return all
}

// create makes all at once, through the API as the command does.
func (r *crowd) create(ctx context.Context, word string, cold bool) (m CrowdCreates, err error) {
	daemon, err := proc.Identify(r.idle.PID)
	if err != nil {
		return m, err
	}
	used, err := proc.CPUTime(daemon, "")
	if err != nil {
		return m, err
	}
	names := r.names(word)
	m.Operations = make([]op.Operation, len(names))
	eg, ectx := errgroup.WithContext(ctx)
	for i, name := range names {
		eg.Go(func() error {
			o, err := r.client.CreateVM(ectx, api.CreateVM{Name: name, Image: r.Image, Memory: r.memory, Cold: cold})
			if err != nil {
				return err
			}
			m.Operations[i], err = r.client.Follow(ectx, o.ID, func(op.Operation) {})
			if err == nil && m.Operations[i].Error != nil {
				err = m.Operations[i].Error
			}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return m, err
	}
	now, err := proc.CPUTime(daemon, "")
	m.DaemonCPU = now - used
	return m, err
}
