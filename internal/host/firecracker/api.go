package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// config is what Firecracker reads at its start: definition FullVmConfiguration of its API
// description. Only what banger sets is here.
type config struct {
	BootSource        bootSource         `json:"boot-source"`
	MachineConfig     machineConfig      `json:"machine-config"`
	Drives            []drive            `json:"drives"`
	NetworkInterfaces []networkInterface `json:"network-interfaces"`
	Vsock             vsock              `json:"vsock"`
	Entropy           entropyDevice      `json:"entropy"`
	Balloon           balloon            `json:"balloon"`
}

type bootSource struct {
	KernelImagePath string `json:"kernel_image_path"`
	InitrdPath      string `json:"initrd_path,omitempty"`
	BootArgs        string `json:"boot_args"`
}

type machineConfig struct {
	VCPUCount  int   `json:"vcpu_count"`
	MemSizeMiB int64 `json:"mem_size_mib"`
}

type drive struct {
	DriveID      string    `json:"drive_id"`
	PathOnHost   string    `json:"path_on_host"`
	IsRootDevice bool      `json:"is_root_device"`
	IsReadOnly   bool      `json:"is_read_only"`
	CacheType    cacheType `json:"cache_type"`
	IOEngine     ioEngine  `json:"io_engine"`
}

type cacheType string

const writeback cacheType = "Writeback"

type ioEngine string

const syncEngine ioEngine = "Sync"

type networkInterface struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
	GuestMAC    string `json:"guest_mac"`
}

type vsock struct {
	GuestCID uint32 `json:"guest_cid"`
	UDSPath  string `json:"uds_path"`
}

type entropyDevice struct{}

type balloon struct {
	AmountMiB    int64 `json:"amount_mib"`
	DeflateOnOOM bool  `json:"deflate_on_oom"`
}

// instanceInfo answers GET /.
type instanceInfo struct {
	AppName    string        `json:"app_name"`
	ID         string        `json:"id"`
	State      instanceState `json:"state"`
	VMMVersion string        `json:"vmm_version"`
}

type instanceState string

const (
	running instanceState = "Running"
	paused  instanceState = "Paused"
)

// vmUpdate is what PATCH /vm takes.
type vmUpdate struct {
	State vmState `json:"state"`
}

type vmState string

const (
	statePaused  vmState = "Paused"
	stateResumed vmState = "Resumed"
)

// balloonUpdate is what PATCH /balloon takes.
type balloonUpdate struct {
	AmountMiB int64 `json:"amount_mib"`
}

// driveUpdate is what PATCH /drives/{drive_id} takes.
type driveUpdate struct {
	DriveID    string `json:"drive_id"`
	PathOnHost string `json:"path_on_host"`
}

// snapshotCreate is what PUT /snapshot/create takes.
type snapshotCreate struct {
	SnapshotType snapshotType `json:"snapshot_type"`
	SnapshotPath string       `json:"snapshot_path"`
	MemFilePath  string       `json:"mem_file_path"`
}

type snapshotType string

const full snapshotType = "Full"

// snapshotLoad is what PUT /snapshot/load takes.
type snapshotLoad struct {
	SnapshotPath     string            `json:"snapshot_path"`
	MemBackend       memoryBackend     `json:"mem_backend"`
	NetworkOverrides []networkOverride `json:"network_overrides"`
	ResumeVM         bool              `json:"resume_vm"`
}

type memoryBackend struct {
	BackendType backendType `json:"backend_type"`
	BackendPath string      `json:"backend_path"`
}

type backendType string

const fileBackend backendType = "File"

type networkOverride struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
}

// apiError is the body of every refusal.
type apiError struct {
	FaultMessage string `json:"fault_message"`
}

// errRefused is what Firecracker answers to a request that it does not carry out.
type errRefused struct {
	status string
	reason string // empty: none was given
}

func (e errRefused) Error() string {
	if e.reason == "" {
		return "status " + e.status
	}
	return fmt.Sprintf("status %s: %s", e.status, e.reason)
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// describe asks the Firecracker that listens on socket what it is and does. It is answered once the
// guest runs.
func describe(ctx context.Context, socket string) (instanceInfo, error) {
	var info instanceInfo
	return info, call(ctx, socket, http.MethodGet, "/", nil, &info)
}

// change asks the Firecracker that listens on socket to stop or to go on running its guest. It answers
// when the vCPUs have, and takes what is so already for done.
func change(ctx context.Context, socket string, to vmState) error {
	return call(ctx, socket, http.MethodPatch, "/vm", vmUpdate{State: to}, nil)
}

// call makes one request, with a body unless that is nil, and reads the answer, unless into is nil.
func call(ctx context.Context, socket, method, path string, body, into any) error {
	// One request on a connection of its own: nothing is kept open that could leak.
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialUnix(ctx, socket) },
	}
	var sent io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://firecracker"+path, sent)
	if err != nil {
		return err
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer := json.NewDecoder(io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode/100 != 2 {
		var refusal apiError
		_ = answer.Decode(&refusal) // without one, the status has to do
		return errRefused{strings.TrimSpace(res.Status), refusal.FaultMessage}
	}
	if into == nil {
		return nil
	}
	if err := answer.Decode(into); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// dialUnix connects to a Unix socket through its directory's descriptor: the kernel takes at most 107
// bytes of a socket's path, and a state directory may lie deep.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	short := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	return d.DialContext(ctx, "unix", short)
}
