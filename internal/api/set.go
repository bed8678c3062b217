package api

// SetVM says what is to be different about a VM. What is not in it stays.
type SetVM struct {
	Settings map[string]string  `json:"settings,omitempty" doc:"values as people write them, by key: name, vcpu, memory, root_disk, work_disk, restart, and what features of the daemon add"`
	Labels   map[string]*string `json:"labels,omitempty" doc:"by key; null takes a label away"`
}

// Altered is one setting that a change would make different.
type Altered struct {
	Key     string `json:"key"`
	From    string `json:"from"`
	To      string `json:"to"`
	Restart string `json:"restart,omitempty" doc:"why it would wait for the VM's next start; empty when it would take effect at once"`
}
