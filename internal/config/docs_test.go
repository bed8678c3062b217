package config_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/internal/config"
	"banger/internal/vm"
)

// row is a line of the tables in docs/configuration.md.
type row struct{ key, kind, def, variable, files string }

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func documented(t *testing.T) []row {
	t.Helper()
	var out []row
	for line := range strings.Lines(page(t)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 8 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		for i := range cells {
			cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "`", "")
		}
		out = append(out, row{cells[1], cells[2], cells[3], cells[4], cells[5]})
	}
	return out
}

// TestEveryKeyIsDocumented holds docs/configuration.md to the keys that there are: their order, their
// environment variables, the files that may hold them and what they are where nobody says anything.
func TestEveryKeyIsDocumented(t *testing.T) {
	rows := documented(t)
	system, user, project := config.Keys()
	variables := config.Variables()
	defaults := builtIn()
	var keys []string
	several := 0
	for _, r := range rows {
		keys = append(keys, r.key)
		variable := "BANGER_" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(r.key, "daemon."), ".", "_"))
		if strings.Contains(r.key, ".UID.") { // there are as many as there are users
			if several++; r.variable != "none" {
				t.Errorf("%s: documented with %q", r.key, r.variable)
			}
		} else if r.variable != variable || !slices.Contains(variables, variable) {
			t.Errorf("%s: documented with %q, want %q, which must be among %v", r.key, r.variable, variable, variables)
		}
		files := "system"
		if slices.Contains(user, r.key) {
			files += ", user"
		}
		if slices.Contains(project, r.key) {
			files += ", project"
		}
		if r.files != files {
			t.Errorf("%s: documented for the files %q, want %q", r.key, r.files, files)
		}
		if def, ok := defaults[r.key]; ok && r.def != def {
			t.Errorf("%s: the default is documented as %q, want %q", r.key, r.def, def)
		}
	}
	if !slices.Equal(keys, system) {
		t.Errorf("documented are %v\nwant %v", keys, system)
	}
	if len(variables) != len(system)-several {
		t.Errorf("%d variables for %d keys", len(variables), len(system))
	}
}

func builtIn() map[string]string {
	f := config.BuiltIn()
	return map[string]string{
		"vm.image":            f.VM.Image,
		"vm.vcpu":             fmt.Sprint(f.VM.VCPU),
		"vm.memory":           vm.FormatSize(int64(f.VM.Memory)),
		"vm.work_disk":        vm.FormatSize(int64(f.VM.WorkDisk)),
		"vm.locale":           f.VM.Locale.Name,
		"daemon.group":        f.Daemon.Group,
		"daemon.log_level":    strings.ToLower(slog.Level(f.Daemon.LogLevel).String()),
		"daemon.boot_timeout": time.Duration(f.Daemon.BootTimeout).String(),
		"daemon.stop_timeout": time.Duration(f.Daemon.StopTimeout).String(),
		"daemon.trash_grace":  time.Duration(f.Daemon.TrashGrace).String(),
		"daemon.tap_pool":     fmt.Sprint(f.Daemon.TAPPool),

		"network.isolated": strconv.FormatBool(f.Network.Isolated),
		"network.nat":      strconv.FormatBool(f.Network.NAT),
		"network.nat6":     strconv.FormatBool(f.Network.NAT6),
		"network.egress":   string(f.Network.Egress.Egress),

		"admission.memory_overcommit": strconv.FormatFloat(float64(f.Admission.MemoryOvercommit), 'f', 1, 64),
	}
}

func TestExamplesLoad(t *testing.T) {
	blocks := strings.Split(page(t), "```toml\n")[1:]
	dir := home(t) // leaves the directory that the page is found from
	if len(blocks) != 2 {
		t.Fatalf("%d examples", len(blocks))
	}
	system := filepath.Join(dir, "system.toml")
	for i, path := range []string{system, filepath.Join(dir, config.ProjectFile)} {
		text, _, _ := strings.Cut(blocks[i], "```")
		write(t, path, text)
	}
	c, err := config.LoadFrom(system, "")
	if err != nil || c.VM.Memory != 8*vm.GiB {
		t.Errorf("%+v, %v", c, err)
	}
	if d, err := config.LoadDaemon(system); err != nil || d.VM.Memory != 2*vm.GiB {
		t.Errorf("%+v, %v", d, err)
	}
}
