package lifecycle_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/hosttest"
	"banger/internal/image"
	"banger/internal/lifecycle"
)

// TestJournal holds that an operation leaves one line of JSON for each stage and one for the whole, and that the last
// one says of a failure what its user is told: stage, cause, hint and where the raw logs are.
func TestJournal(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer // read when nothing runs
	w.log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	w.m = w.manager(builder{catalog: catalog{list: []image.Manifest{debian()}}, pull: func(_ context.Context, report lifecycle.StageReport) error {
		report("bootstrap", "10%")
		return context.DeadlineExceeded
	}})
	w.must(w.create("dev"))
	w.must(w.end(w.m.Stop(t.Context(), alice, "dev", 0)))
	w.host.Guest = hosttest.Dies
	if err := w.end(w.m.Start(t.Context(), alice, "dev")); err == nil {
		t.Error("a guest that fails was started")
	}
	w.must(w.end(w.m.Delete(t.Context(), alice, "dev", lifecycle.DeleteRequest{Now: true})))
	w.must(w.m.Idle(t.Context()))
	if err := w.end(w.m.PullImage(alice, "debian:13")); err == nil {
		t.Error("an image that fails was pulled")
	}
	w.m.Close()

	want := `
{"level":"INFO","msg":"stage","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","stage":"boot-set","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","stage":"directory","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","stage":"guest","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","stage":"guest.services","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","stage":"hypervisor","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","stage":"nic","duration":0,"outcome":"done","detail":"TAP"}
{"level":"INFO","msg":"stage","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","stage":"ports","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","stage":"root-disk","duration":0,"outcome":"done","detail":"reflink"}
{"level":"INFO","msg":"stage","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","stage":"work-disk","duration":0,"outcome":"done","detail":"reflink"}
{"level":"INFO","msg":"operation","operation":"op-1","kind":"vm.create","vm":"dev","id":"ID","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-2","kind":"vm.stop","vm":"dev","id":"ID","stage":"devices","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-2","kind":"vm.stop","vm":"dev","id":"ID","stage":"hypervisor","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-2","kind":"vm.stop","vm":"dev","id":"ID","stage":"shutdown","duration":0,"outcome":"done"}
{"level":"INFO","msg":"operation","operation":"op-2","kind":"vm.stop","vm":"dev","id":"ID","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-3","kind":"vm.start","vm":"dev","id":"ID","stage":"boot-set","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-3","kind":"vm.start","vm":"dev","id":"ID","stage":"guest","duration":0,"outcome":"failed","error":"the guest ended before it was ready"}
{"level":"INFO","msg":"stage","operation":"op-3","kind":"vm.start","vm":"dev","id":"ID","stage":"hypervisor","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-3","kind":"vm.start","vm":"dev","id":"ID","stage":"nic","duration":0,"outcome":"done","detail":"TAP"}
{"level":"INFO","msg":"stage","operation":"op-3","kind":"vm.start","vm":"dev","id":"ID","stage":"ports","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-3","kind":"vm.start","vm":"dev","id":"ID","stage":"root-disk","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-3","kind":"vm.start","vm":"dev","id":"ID","stage":"work-disk","duration":0,"outcome":"done"}
{"level":"ERROR","msg":"operation","operation":"op-3","kind":"vm.start","vm":"dev","id":"ID","duration":0,"outcome":"failed","error":{"code":"guest_failed","op":"start VM","subject":"dev","stage":"guest","msg":"the guest ended before it was ready","hint":"its kernel or init gave up; see the console's last lines","detail":"last words on the console","logs":["/state/vms/ID/logs/console.log","/state/vms/ID/logs/firecracker.log"]}}
{"level":"INFO","msg":"stage","operation":"op-4","kind":"vm.delete","vm":"dev","id":"ID","stage":"removal","duration":0,"outcome":"done"}
{"level":"INFO","msg":"operation","operation":"op-4","kind":"vm.delete","vm":"dev","id":"ID","duration":0,"outcome":"done"}
{"level":"INFO","msg":"stage","operation":"op-5","kind":"image.pull","image":"debian:13","stage":"bootstrap","duration":0,"outcome":"failed","detail":"10%","error":"context deadline exceeded"}
{"level":"ERROR","msg":"operation","operation":"op-5","kind":"image.pull","image":"debian:13","duration":0,"outcome":"failed","error":{"code":"internal","op":"pull image","subject":"debian:13","stage":"bootstrap","msg":"context deadline exceeded","logs":["/state/bangerd.log"]}}
`
	if d := cmp.Diff(want, journalText(log.String())); d != "" {
		t.Error(d)
	}
}

// journalText makes a journal comparable: operations are numbered, times are gone, and the stages that ran side by side
// stand in the order of their names.
func journalText(log string) string {
	// A guest's end has an operation of its own, unless the start that failed has dealt with it.
	lines, ops := strings.SplitAfter(log, "\n"), []string{}
	log = strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "vm.ended") }), "")
	for _, id := range regexp.MustCompile(`op-[0-9a-f]{10}`).FindAllString(log, -1) {
		if !slices.Contains(ops, id) {
			ops = append(ops, id)
		}
	}
	for i, id := range ops {
		log = strings.ReplaceAll(log, id, "op-"+string(rune('1'+i)))
	}
	log = regexp.MustCompile(`btab12-[0-9a-f]{8}`).ReplaceAllString(log, "TAP")
	log = regexp.MustCompile(`"id":"[0-9a-f]{12}"`).ReplaceAllString(log, `"id":"ID"`)
	log = regexp.MustCompile(`vms/[0-9a-f]{12}`).ReplaceAllString(log, `vms/ID`)
	log = regexp.MustCompile(`"duration":\d+`).ReplaceAllString(log, `"duration":0`)
	lines = slices.DeleteFunc(strings.Split(log, "\n"), func(l string) bool {
		// Whether the commit beside a boot that fails comes first is left to chance.
		return !strings.Contains(l, `"operation":`) || strings.Contains(l, "commit")
	})
	place := func(l string) string {
		whole := strings.Contains(l, `"msg":"operation"`)
		return regexp.MustCompile(`op-\d`).FindString(l) + fmt.Sprint(whole) + l
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(place(a), place(b)) })
	return "\n" + strings.Join(lines, "\n") + "\n"
}
