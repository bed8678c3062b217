package op

import (
	"context"
	"slices"
	"sync"
	"time"

	"banger/internal/fault"
)

// keepEnded is how many ended operations a Tracker remembers; older ones are the store's to tell.
const keepEnded = 200

// Watcher is told what becomes of operations, each thing once. It must not block for long, and may not ask the
// tracker.
type Watcher interface {
	// StageEnded tells of a stage of an operation that runs.
	StageEnded(o Operation, s Stage)
	OperationEnded(o Operation)
}

// Tracker knows the operations of this process while they run and for a while after. It performs no
// I/O and starts no goroutine.
type Tracker struct {
	watchers []Watcher

	mu    sync.Mutex
	jobs  map[ID]*Job
	ended []ID // oldest first
}

// NewTracker returns an empty tracker.
func NewTracker(watchers ...Watcher) *Tracker {
	return &Tracker{watchers: watchers, jobs: map[ID]*Job{}}
}

// Job is one operation under way.
type Job struct {
	tracker *Tracker
	cancel  func()

	mu      sync.Mutex
	op      Operation
	changed chan struct{} // closed and replaced at every change
}

// Begin starts to track an operation. cancel is called when somebody calls it off.
func (t *Tracker) Begin(o Operation, cancel func()) *Job {
	j := &Job{tracker: t, cancel: cancel, op: o, changed: make(chan struct{})}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.jobs[o.ID] = j
	return j
}

// Get returns an operation as it is now.
func (t *Tracker) Get(id ID) (Operation, bool) {
	j := t.job(id)
	if j == nil {
		return Operation{}, false
	}
	return j.Snapshot(), true
}

// List returns what is tracked, newest first.
func (t *Tracker) List() []Operation {
	t.mu.Lock()
	jobs := make([]*Job, 0, len(t.jobs))
	for _, j := range t.jobs {
		jobs = append(jobs, j)
	}
	t.mu.Unlock()
	out := make([]Operation, 0, len(jobs))
	for _, j := range jobs {
		out = append(out, j.Snapshot())
	}
	slices.SortFunc(out, func(a, b Operation) int { return b.Created.Compare(a.Created) })
	return out
}

// Cancel calls an operation off. It ends when what it had made is undone.
func (t *Tracker) Cancel(id ID) error {
	j := t.job(id)
	if j == nil || j.Snapshot().State.Ended() {
		return fault.New(fault.WrongState, "it has ended already").WithOp("cancel operation", string(id)).
			WithHint("run `banger op show %s` to see how", id)
	}
	j.cancel()
	return nil
}

// followPause is the least time between two states of an operation that runs. Stages come in bursts, and whoever follows
// them encodes and draws all of them each time, at the cost of what they are about.
const followPause = 150 * time.Millisecond

// Follow calls each with the operation as it is now and again after changes, until it has ended or
// ctx is done. A slow reader sees fewer intermediate states, never a stale one, and delays nobody. The end is told at once,
// what comes before it a moment late.
func (t *Tracker) Follow(ctx context.Context, id ID, each func(Operation) error) error {
	j := t.job(id)
	if j == nil {
		return fault.New(fault.NotFound, "no such operation").WithOp("follow operation", string(id)).
			WithHint("run `banger op list`")
	}
	for {
		now, changed := j.now()
		if err := each(now); err != nil {
			return err
		}
		if now.State.Ended() {
			return nil
		}
		pause := time.NewTimer(followPause)
		err := j.await(ctx, changed, pause.C)
		pause.Stop()
		if err != nil {
			return err
		}
	}
}

// await returns once the operation has changed and the pause is over, or it has ended.
func (j *Job) await(ctx context.Context, changed <-chan struct{}, pause <-chan time.Time) error {
	for due, over := false, false; !due || !over; {
		select {
		case <-changed:
			var now Operation
			if now, changed = j.now(); now.State.Ended() {
				return nil
			}
			due = true
		case <-pause:
			over = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// now is the operation as it is, and what is closed when that changes.
func (j *Job) now() (Operation, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.copy(), j.changed
}

func (t *Tracker) job(id ID) *Job {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.jobs[id]
}

// Snapshot returns the operation as it is now.
func (j *Job) Snapshot() Operation {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.copy()
}

func (j *Job) copy() Operation {
	o := j.op
	o.Stages, o.Warnings, o.Made = slices.Clone(o.Stages), slices.Clone(o.Warnings), slices.Clone(o.Made)
	return o
}

// update changes the operation and wakes its followers. It returns the operation as it is then.
func (j *Job) update(change func(*Operation)) Operation {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&j.op)
	close(j.changed)
	j.changed = make(chan struct{})
	return j.copy()
}

// stageEnded tells of the stage with this index.
func (j *Job) stageEnded(o Operation, index int) {
	for _, w := range j.tracker.watchers {
		w.StageEnded(o, o.Stages[index])
	}
}

// ActiveStage is a stage that has begun.
type ActiveStage struct {
	job   *Job
	index int
	begun time.Time // its monotonic reading survives; a stored Stage's does not
}

// Stage begins a stage.
func (j *Job) Stage(name string) *ActiveStage {
	r := &ActiveStage{job: j, begun: time.Now()}
	j.update(func(o *Operation) {
		r.index = len(o.Stages)
		o.Stages = append(o.Stages, Stage{Name: name, Started: r.begun})
	})
	return r
}

// Detail says what the stage is doing now, one line.
func (r *ActiveStage) Detail(text string) {
	r.job.update(func(o *Operation) { o.Stages[r.index].Detail = text })
}

// End ends the stage: well, or with the error that ended it.
func (r *ActiveStage) End(err error) {
	now := r.job.update(func(o *Operation) {
		o.Stages[r.index] = o.Stages[r.index].ended(err, time.Since(r.begun))
	})
	r.job.stageEnded(now, r.index)
}

// Note adds a stage that happened elsewhere and took this long by that place's own clock.
func (j *Job) Note(name string, took time.Duration) {
	noted := false
	now := j.update(func(o *Operation) {
		if noted = len(o.Stages) < maxStages; noted {
			o.Stages = append(o.Stages, Stage{Name: name, Started: time.Now()}.ended(nil, took))
		}
	})
	if noted {
		j.stageEnded(now, len(now.Stages)-1)
	}
}

// Makes notes the id of a VM that came of it.
func (j *Job) Makes(id string) {
	j.update(func(o *Operation) { o.Made = append(o.Made, id) })
}

// Warn adds what may go wrong one day, one line.
func (j *Job) Warn(text string) {
	j.update(func(o *Operation) { o.Warnings = append(o.Warnings, text) })
}

// maxStages bounds what a chatty guest can add.
const maxStages = 200

// Finish ends the operation: well, or with the error that ended it.
func (j *Job) Finish(err error) {
	t := j.tracker
	ended := j.Snapshot().Finished(err)
	for _, w := range t.watchers { // before its followers, who may look at what a watcher wrote
		w.OperationEnded(ended)
	}
	j.update(func(o *Operation) {
		*o = o.Finished(err)
		o.Ended = ended.Ended
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = append(t.ended, j.op.ID)
	if len(t.ended) > keepEnded {
		delete(t.jobs, t.ended[0])
		t.ended = t.ended[1:]
	}
}

// Finished returns the operation as it stands once it has ended with err, nil for well. The stage that commits this
// ends with it, and the error says which stage failed first.
func (o Operation) Finished(err error) Operation {
	o.State, o.Ended = outcome(err), time.Now()
	o.Stages = slices.Clone(o.Stages)
	for i, s := range o.Stages {
		if !s.Done {
			o.Stages[i] = s.ended(err, o.Ended.Sub(s.Started))
		}
	}
	if err == nil {
		return o
	}
	o.Error = fault.From(err)
	if first := o.firstToEnd(o.State); first != "" && o.Error.Stage == "" {
		o.Error = o.Error.InStage(first)
	}
	return o
}

// firstToEnd names the stage that was the first to end like this. Those beside it may have begun before, and have failed
// because they were called off.
func (o Operation) firstToEnd(outcome State) string {
	var name string
	var first time.Time
	for _, s := range o.Stages {
		if end := s.Started.Add(s.Duration); s.Outcome == outcome && (name == "" || end.Before(first)) {
			name, first = s.Name, end
		}
	}
	return name
}
