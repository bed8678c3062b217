package daemon

import "context"

// keepSpares has spare TAPs made behind whoever takes one, until the returned function is called, which waits. Those that
// are there stay, as the bridge does: the next daemon finds them by their names.
func (d *Daemon) keepSpares(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.links.KeepSpares(ctx, func(err error) { d.log.Warn("keep TAPs ready", "error", err) })
	}()
	return func() { cancel(); <-done }
}
