package hosttest

import "fmt"

// Effect is the n-th effect with a label, from 1. Where effects happen side by side, it is the same one in every run,
// which the n-th of all is not.
type Effect struct {
	Label string
	Nth   int
}

// String is the label, with a number from the second on.
func (e Effect) String() string {
	if e.Nth > 1 {
		return fmt.Sprintf("%s #%d", e.Label, e.Nth)
	}
	return e.Label
}

// Each tells the effects with these labels apart.
func Each(labels []string) []Effect {
	var all []Effect
	for i := range labels {
		all = append(all, last(labels[:i+1]))
	}
	return all
}

// last is the last of the effects with these labels.
func last(labels []string) Effect {
	e := Effect{Label: labels[len(labels)-1]}
	for _, l := range labels {
		if l == e.Label {
			e.Nth++
		}
	}
	return e
}

// FailOn makes this effect fail once, counted from now.
func (h *Host) FailOn(e Effect) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.undisturbed()
	h.failOn = e
}

// CrashOn lets this effect happen, counted from now, and every later one fail with ErrCrashed.
func (h *Host) CrashOn(e Effect) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.undisturbed()
	h.crashOn = e
}

// Disturbed reports whether the effect that was to fail, or to be the daemon's last, has happened.
func (h *Host) Disturbed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range Each(h.effects) {
		if e == h.failOn || e == h.crashOn {
			return true
		}
	}
	return false
}
