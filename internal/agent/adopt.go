package agent

import (
	"context"
	"errors"
	"fmt"

	"banger/internal/agentproto"
)

// ErrOthers is returned by Machine.Adopt for a machine that may let in whoever another lets in, or show that one's keys.
// Nobody is to use it.
var ErrOthers = errors.New("it would keep keys of another guest")

// hold makes the guest fit for a snapshot.
func (r *requests) hold(h agentproto.Hold) agentproto.Response {
	if h.For <= 0 || h.For > agentproto.MaxHold {
		return agentproto.Response{Error: fmt.Sprintf("hold for %v: it takes at most %v", h.For, agentproto.MaxHold)}
	}
	r.agent.Machine.Sync()
	r.control.hold(h.For) // last: nothing is sent after it but the answer
	return agentproto.Response{}
}

// adopt makes the guest, which was restored from a snapshot, another VM. Meanwhile there is no control connection: the
// token that the agent has is another guest's.
func (r *requests) adopt(ctx context.Context, a agentproto.Adopt) agentproto.Response {
	if err := a.Check(); err != nil {
		return outcome(err)
	}
	r.adopting.Lock()
	defer r.adopting.Unlock()
	ctx, cancel := context.WithTimeout(ctx, changeBudget)
	defer cancel()
	r.control.hold(changeBudget)
	defer r.control.release()

	// Before anybody draws what another guest of the same snapshot draws.
	if err := r.agent.Machine.Reseed(a.Entropy); err != nil {
		return outcome(fmt.Errorf("take the entropy: %w", err))
	}
	_, err := Follow(r.agent.Machine, a.Now, r.agent.Log)
	warning := errors.Join(err, r.agent.Machine.Adopt(ctx, a.Config))
	if errors.Is(warning, ErrOthers) {
		return outcome(warning)
	}
	identity := Identity{Token: a.Token, Services: a.Config.Services}
	if err := r.agent.Machine.Keep(identity); err != nil {
		return outcome(fmt.Errorf("keep the token: %w", err))
	}
	r.control.become(identity)
	if warning == nil {
		return agentproto.Response{Adopted: &agentproto.Adopted{}}
	}
	// None of these keeps a guest from serving; in its log they explain what it then lacks.
	r.agent.Log.Error("take another identity", "error", warning)
	text := warning.Error()
	return agentproto.Response{Adopted: &agentproto.Adopted{Warning: text[:min(len(text), maxWarning)]}}
}

// maxWarning bounds what is told of parts that failed, in bytes.
const maxWarning = 2 << 10
