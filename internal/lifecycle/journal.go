package lifecycle

import (
	"context"
	"log/slog"
	"strings"

	"banger/internal/fault"
	"banger/internal/op"
)

// Journal logs what becomes of operations: one line for each stage, as it ends, and one for the whole.
func Journal(log *slog.Logger) op.Watcher { return journal{log} }

type journal struct{ log *slog.Logger }

// StageEnded implements op.Watcher.
func (j journal) StageEnded(o op.Operation, s op.Stage) {
	attrs := append(about(o), slog.String("stage", s.Name), slog.Duration("duration", s.Duration), slog.String("outcome", string(s.Outcome)))
	if s.Detail != "" {
		attrs = append(attrs, slog.String("detail", s.Detail))
	}
	if s.Error != "" {
		attrs = append(attrs, slog.String("error", s.Error))
	}
	j.log.LogAttrs(context.Background(), slog.LevelInfo, "stage", attrs...)
}

// OperationEnded implements op.Watcher.
func (j journal) OperationEnded(o op.Operation) {
	level := slog.LevelInfo
	attrs := append(about(o), slog.Duration("duration", o.Ended.Sub(o.Created)), slog.String("outcome", string(o.State)))
	if e := o.Error; e != nil {
		if o.State == op.Failed {
			level = slog.LevelError
		}
		attrs = append(attrs, slog.Any("error", (*failure)(e)))
	}
	j.log.LogAttrs(context.Background(), level, "operation", attrs...)
}

// failure is an error as the API sends it, with stage, hint and logs. slog would print no more than its message.
type failure fault.Error

// about says which operation it is, and on what.
func about(o op.Operation) []slog.Attr {
	attrs := []slog.Attr{slog.String("operation", string(o.ID)), slog.String("kind", o.Kind)}
	if strings.HasPrefix(o.Kind, "vm.") {
		return append(attrs, slog.String("vm", o.Name), slog.String("id", o.Subject))
	}
	return append(attrs, slog.String("image", o.Name))
}
