package lifecycle

import "sync"

// tally counts goroutines. Unlike a sync.WaitGroup it may grow from nothing while somebody waits: a
// guest ends when it likes, also while the daemon asks whether anything runs.
type tally struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n falls to zero; nil while nobody waits
}

func (t *tally) run(f func()) {
	t.mu.Lock()
	t.n++
	t.mu.Unlock()
	go func() {
		defer t.done()
		f()
	}()
}

func (t *tally) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.zero != nil {
		close(t.zero)
		t.zero = nil
	}
}

// idle is closed as soon as nothing runs.
func (t *tally) idle() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if t.zero == nil {
		t.zero = make(chan struct{})
	}
	return t.zero
}
