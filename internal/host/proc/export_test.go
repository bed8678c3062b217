package proc

import "banger/internal/vm"

// ParseStat and Cgroup2Mount are pure parsers of kernel files, tested by table.
var (
	ParseStat    = parseStat
	Cgroup2Mount = cgroup2Mount
)

// ScopeDir is where systemd has a VM's scope.
func (g *Groups) ScopeDir(id vm.ID) string { return g.scopeDir(id) }
