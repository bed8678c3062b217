package guest

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"banger/internal/agentproto"
)

// Bounds of a guest's words, in bytes.
const (
	maxWord     = 64
	maxMsg      = 512
	maxServices = 64
)

// Clean makes a guest's text safe to show and keep: one line of at most limit bytes, in which
// everything that is not printable is escaped as in a Go string. A text cut short ends in "…".
func Clean(s string, limit int) string {
	const ellipsis = "…"
	var b strings.Builder
	fits := 0 // how much of b an ellipsis can still follow
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		piece := s[:n]
		switch {
		case r == utf8.RuneError && n == 1:
			const hex = "0123456789abcdef"
			piece = `\x` + string(hex[s[0]>>4]) + string(hex[s[0]&15])
		case !strconv.IsPrint(r):
			q := strconv.QuoteRuneToASCII(r)
			piece = q[1 : len(q)-1]
		}
		if b.Len() <= limit-len(ellipsis) {
			fits = b.Len()
		}
		if b.Len()+len(piece) > limit {
			return b.String()[:fits] + ellipsis
		}
		b.WriteString(piece)
		s = s[n:]
	}
	return b.String()
}

func cleanHello(h agentproto.Hello) agentproto.Hello {
	return agentproto.Hello{
		MinVersion: h.MinVersion, MaxVersion: h.MaxVersion, Phase: h.Phase,
		Agent: Clean(h.Agent, maxWord), Arch: Clean(h.Arch, maxWord), BootID: Clean(h.BootID, maxWord),
	}
}

// clean turns a frame into an event; false means that the frame says nothing we know.
func clean(f agentproto.FromAgent) (Event, bool) {
	switch {
	case f.Progress != nil:
		switch f.Progress.Stage {
		case agentproto.StageKernel, agentproto.StageModules, agentproto.StageDisks, agentproto.StageConfig, agentproto.StageInit:
			return Event{Progress: &agentproto.Progress{Stage: f.Progress.Stage, Uptime: max(0, f.Progress.Uptime)}}, true
		}
	case f.Ready != nil:
		r := agentproto.Ready{Uptime: max(0, f.Ready.Uptime)}
		if n := len(f.Ready.Services); n > 0 && n <= maxServices {
			r.Services = make(map[string]time.Duration, n)
			for name, up := range f.Ready.Services {
				r.Services[Clean(name, maxWord)] = max(0, up)
			}
		}
		return Event{Ready: &r}, true
	case f.Failed != nil:
		return Event{Failed: &agentproto.Failed{Stage: Clean(f.Failed.Stage, maxWord), Msg: Clean(f.Failed.Msg, maxMsg)}}, true
	case f.Farewell != nil:
		intent := f.Farewell.Intent
		if intent != agentproto.IntentPoweroff && intent != agentproto.IntentReboot {
			intent = agentproto.IntentUnknown
		}
		return Event{Farewell: &agentproto.Farewell{Intent: intent}}, true
	}
	return Event{}, false
}

func cleanInfo(i agentproto.Info) agentproto.Info {
	return agentproto.Info{
		Agent: Clean(i.Agent, maxWord), Version: i.Version, Kernel: Clean(i.Kernel, maxWord), OS: Clean(i.OS, maxWord),
		Init: Clean(i.Init, maxWord), Hostname: Clean(i.Hostname, maxWord), BootID: Clean(i.BootID, maxWord),
		Uptime: max(0, i.Uptime), MemTotal: max(0, i.MemTotal), MemAvail: max(0, i.MemAvail), AgentRSS: max(0, i.AgentRSS),
	}
}

// cleanStats keeps figures within what a machine can have: sums over many guests must not run over.
func cleanStats(s agentproto.Stats) agentproto.Stats {
	const most = 1 << 50
	bytes := func(n int64) int64 { return min(max(0, n), most) }
	return agentproto.Stats{CPU: max(0, s.CPU), MemTotal: bytes(s.MemTotal), MemAvail: min(bytes(s.MemAvail), bytes(s.MemTotal))}
}

// cleanListeners leaves out what is no address.
func cleanListeners(l agentproto.Listeners) agentproto.Listeners {
	out := agentproto.Listeners{More: max(0, l.More)}
	for _, s := range l.All[:min(len(l.All), agentproto.MaxListeners)] {
		address, err := netip.ParseAddrPort(s.Address)
		if err != nil || address.Addr().Zone() != "" {
			continue
		}
		out.All = append(out.All, agentproto.Socket{Address: address.String(), PID: max(0, s.PID), Program: Clean(s.Program, maxWord)})
	}
	return out
}
