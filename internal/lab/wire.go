package lab

// The lab host and its caller speak over virtio-serial ports, one direction of one stream each,
// named as below; control messages are JSON, one a line. The console carries only the kernel's own
// words and is never read for meaning.
const (
	portControl = "lab.control"
	portIn      = "lab.in"
	portOut     = "lab.out"
	portErr     = "lab.err"
)

// order is what the caller asks the lab host to run.
type order struct {
	Argv    []string `json:"argv"`
	Env     []string `json:"env"`
	Dir     string   `json:"dir"`
	TTY     bool     `json:"tty"`
	Rows    uint16   `json:"rows"`
	Cols    uint16   `json:"cols"`
	Systemd bool     `json:"systemd"`
	Stdin   bool     `json:"stdin"`
}

// toHost is a later word of the caller.
type toHost struct {
	Signal int    `json:"signal,omitempty"` // passed to the command
	Rows   uint16 `json:"rows,omitempty"`   // the terminal's new size
	Cols   uint16 `json:"cols,omitempty"`
}

// toCaller is a word of the lab host; exactly one field is set.
type toCaller struct {
	Begun bool   `json:"begun,omitempty"` // the command is about to run
	Alive bool   `json:"alive,omitempty"` // it still runs; said every few seconds
	Exit  *int   `json:"exit,omitempty"`  // it ended with this status, or 128 + signal
	Fault string `json:"fault,omitempty"` // the lab host could not run it
}

// Mount tags and places of the 9p shares and disks.
const (
	tagSrc, mountSrc       = "src", "/src"
	tagOut, mountOut       = "out", "/out"
	tagImages, mountImages = "images", "/images"
	mountScratch           = "/scratch"
)
