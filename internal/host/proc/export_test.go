package proc

// ParseStat and Cgroup2Mount are pure parsers of kernel files, tested by table.
var (
	ParseStat    = parseStat
	Cgroup2Mount = cgroup2Mount
)
