package lifecycle

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"banger/internal/fault"
	"banger/internal/feature"
	"banger/internal/op"
	"banger/internal/vm"
)

// SetRequest says what is to be different about a VM.
type SetRequest struct {
	Settings map[string]string  // values as people write them, by the keys of features' settings
	Labels   map[string]*string // by key; nil takes a label away
}

// Altered is one setting that a change makes different.
type Altered struct {
	Key      string
	From, To string
	Restart  string // why it waits for the next start; empty when it takes effect at once
}

// setBudget bounds what is done to a VM that runs. A guest that is slower takes the change at its next start.
const setBudget = time.Minute

// Set changes what is asked of a VM. What a VM that runs cannot take at once it takes at its next start: until then
// it is in vm.VM.Pending, and the operation warns of it. One that fails says so and leaves the settings as they were
// that it had not come to.
func (m *Manager) Set(ctx context.Context, caller vm.Caller, selector string, r SetRequest) (op.Operation, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return op.Operation{}, err
	}
	if _, err := m.alter(v, r); err != nil {
		return op.Operation{}, fault.From(err).InOp("set VM", v.Name)
	}
	return m.spawn(newOperation(KindSet, v, caller.UID), v.ID, func(ctx context.Context, job *op.Job) error {
		v, err := m.reload(ctx, v.ID)
		if err != nil {
			return err
		}
		a, err := m.alter(v, r)
		if err != nil {
			return err
		}
		return m.set(ctx, job, a)
	}), nil
}

// PlanSet tells what Set would change, and changes nothing.
func (m *Manager) PlanSet(ctx context.Context, caller vm.Caller, selector string, r SetRequest) ([]Altered, error) {
	v, err := m.Find(ctx, caller, selector)
	if err != nil {
		return nil, err
	}
	a, err := m.alter(v, r)
	if err != nil {
		return nil, fault.From(err).InOp("set VM", v.Name)
	}
	var out []Altered
	was := a.was
	for _, s := range a.steps {
		out = append(out, Altered{Key: s.Key, From: s.Get(was), To: s.Get(s.is), Restart: s.restart(feature.Change{Was: was, Is: s.is})})
		was = s.is
	}
	for _, key := range slices.Sorted(maps.Keys(r.Labels)) {
		from, had := a.was.Labels[key]
		if to, has := a.labels[key]; had != has || from != to {
			out = append(out, Altered{Key: "label " + key, From: from, To: to})
		}
	}
	return out, nil
}

// alteration is the way from a VM as it was to what it is to be, one setting at a time.
type alteration struct {
	was    vm.VM
	labels map[string]string
	steps  []alterStep
}

type alterStep struct {
	feature.Setting
	is vm.VM // with this setting and all before it
}

// restart says why a VM takes the setting at its next start only.
func (s alterStep) restart(c feature.Change) string {
	if !c.Runs() || s.Restart == nil {
		return ""
	}
	return s.Restart(c)
}

// is is the VM with all of it.
func (a alteration) is() vm.VM {
	v := a.was.Clone()
	if n := len(a.steps); n > 0 {
		v = a.steps[n-1].is.Clone()
	}
	v.Labels = a.labels
	return v
}

// alter derives what a request makes of a VM. It is pure.
func (m *Manager) alter(v vm.VM, r SetRequest) (alteration, error) {
	if err := settable(v); err != nil {
		return alteration{}, err
	}
	if v.Process != nil {
		v.Booted = v.Holds() // one that an earlier banger started has what is asked for, so far
	}
	a := alteration{was: v, labels: maps.Clone(v.Labels)}
	known, err := m.known(r.Settings)
	if err != nil {
		return a, err
	}
	is := v.Clone()
	for _, s := range known {
		value, asked := r.Settings[s.Key]
		if !asked {
			continue
		}
		before := is.Clone()
		if err := s.Set(&is, value); err != nil {
			return a, err
		}
		// What waits for the next start is tried once more, when it is asked for once more.
		if !reflect.DeepEqual(before, is) || slices.Contains(v.Pending, s.Key) {
			a.steps = append(a.steps, alterStep{s, is.Clone()})
		}
	}
	for key, value := range r.Labels {
		if value == nil {
			delete(a.labels, key)
			continue
		}
		if a.labels == nil {
			a.labels = map[string]string{}
		}
		a.labels[key] = *value
	}
	return a, errors.Join(vm.CheckLabels(a.labels), is.Spec.Check(0, 0))
}

func settable(v vm.VM) error {
	switch v.State {
	case vm.Creating, vm.Deleting, vm.Restoring:
		return fault.New(fault.WrongState, "it is %s", v.State).WithOp("set VM", v.Name).
			WithHint("wait until `banger vm show %s` says that it runs or is stopped", v.Name)
	case vm.Stopped, vm.Starting, vm.Running, vm.Paused, vm.Stopping, vm.Crashed:
	}
	return nil
}

// settings lists those of all features, in their order.
func (m *Manager) settings() []feature.Setting {
	var all []feature.Setting
	for _, f := range m.features {
		if s, ok := f.(feature.Setter); ok {
			all = append(all, s.Settings()...)
		}
	}
	return all
}

// sole gives a VM values of the settings that no two VMs have alike.
func (m *Manager) sole(v *vm.VM, value func(s feature.Setting) string) error {
	for _, s := range m.settings() {
		if s.Sole {
			if err := s.Set(v, value(s)); err != nil {
				return err
			}
		}
	}
	return nil
}

// known lists the settings of all features, and refuses values for others.
func (m *Manager) known(values map[string]string) ([]feature.Setting, error) {
	all := m.settings()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.ContainsFunc(all, func(s feature.Setting) bool { return s.Key == key }) {
			return nil, unknownSetting(key, all)
		}
	}
	return all, nil
}

// write gives a VM that is about to be made settings of features.
func (m *Manager) write(v *vm.VM, values map[string]string) error {
	all, err := m.known(values)
	if err != nil {
		return err
	}
	for _, s := range all {
		if value, asked := values[s.Key]; asked {
			if err := s.Set(v, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func unknownSetting(key string, known []feature.Setting) error {
	keys := make([]string, len(known))
	for i, s := range known {
		keys[i] = s.Key
	}
	slices.Sort(keys)
	return fault.New(fault.Invalid, "a VM has no setting %q", key).WithHint("there are %s", strings.Join(keys, ", "))
}

// set makes a VM whose lock the caller holds what it is to be. Until a setting is known to have taken effect it
// counts as waiting for the next start: so a daemon that dies in between leaves a VM that is told of truly.
func (m *Manager) set(ctx context.Context, job *op.Job, a alteration) error {
	intent := a.is()
	if intent.Process != nil {
		for _, s := range a.steps {
			intent.Awaits(s.Key, true)
		}
	}
	if err := m.admitChange(ctx, job, a.was, intent); err != nil {
		return err
	}
	// From here on there is no way back: whoever calls it off only stops watching.
	ctx = context.WithoutCancel(ctx)
	bounded, cancel := context.WithTimeout(ctx, setBudget)
	defer cancel()
	c := feature.Change{Was: a.was, Guest: m.guestIn(a.was)}
	done, pending := a.was.Clone(), a.was.Clone()
	var failure error
	for _, s := range a.steps {
		c.Is = s.is
		later, err := m.apply(bounded, job, s, c)
		if err != nil {
			failure = fault.From(err).InOp("set VM", a.was.Name)
			break
		}
		done = s.is
		pending.Awaits(s.Key, later != "")
		if later != "" {
			job.Warn(intent.Name + ": " + s.Key + " takes effect at the next start: " + later)
		}
		c.Was = s.is
	}
	done.Labels, done.Pending = a.labels, pending.Pending
	o := ending(job)
	if failure != nil {
		o = m.failed(job, failure)
	}
	return errors.Join(failure, m.commit(ctx, vm.Change{VM: done, Op: o}))
}

// apply makes one setting true, and says why that waits for the next start if it does.
func (m *Manager) apply(ctx context.Context, job *op.Job, s alterStep, c feature.Change) (later string, err error) {
	if s.Apply != nil {
		err = run(ctx, job, group{{s.Key, func(ctx context.Context, report feature.Report) (err error) {
			later, err = s.Apply(ctx, c, report)
			return err
		}}})
	}
	if why := s.restart(c); why != "" && err == nil {
		later = why
	}
	return later, err
}
