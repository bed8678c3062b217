// Package client speaks /v1 to a daemon over its Unix socket. Every error that the daemon answers comes
// back as the *fault.Error that it was.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"banger/internal/api"
	"banger/internal/buildinfo"
	"banger/internal/fault"
	"banger/internal/fdpass"
	"banger/internal/op"
)

// Client talks to one daemon. Its methods may be called concurrently.
type Client struct {
	// Revive starts a daemon where one that worked on an operation is no more, so that its successor can say how that
	// ended. Nil leaves it to others.
	Revive func(context.Context) error

	socket string
	http   *http.Client
}

// New returns a client for the daemon that listens on socket. Nothing is dialled yet.
func New(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		DisableCompression: true,
		IdleConnTimeout:    time.Minute, // less than the daemon's, so that no request meets a connection that it closes
	}}
	return c
}

func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.socket)
}

// CloseIdle closes the connections that wait for a next request.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// maxAnswer bounds an answer that is read whole.
const maxAnswer = 64 << 20

// request sends body (JSON, or a stream when it is a reader) and returns an answer that is a success.
func (c *Client) request(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r, kind = b, "application/x-tar"
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(text)
	}
	req, err := newRequest(ctx, method, path, r)
	if err != nil {
		return nil, err
	}
	if r != nil {
		req.Header.Set("Content-Type", kind)
	}
	return c.send(ctx, req)
}

// send returns an answer that is a success.
func (c *Client) send(ctx context.Context, req *http.Request) (*http.Response, error) {
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, answered(res)
}

func newRequest(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	if path == "" {
		return nil, fault.New(fault.Invalid, "the name is empty").WithHint("give a name or an id; `banger help` names the commands that list them")
	}
	return http.NewRequestWithContext(ctx, method, "http://banger"+path, body)
}

// answered reads the fault in an answer.
func answered(res *http.Response) error {
	var f fault.Error
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&f); err != nil || f.Code == "" {
		return fault.New(fault.Incompatible, "the daemon answered %s, which this command does not understand", res.Status).
			WithHint("see whether banger and bangerd are of one version: `banger version`")
	}
	return &f
}

// explain keeps the cause, by which the caller tells an absent daemon from a forbidden one.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return fault.New(fault.Unavailable, "the daemon does not answer: %w", err).WithOp("connect to", c.socket).
		WithHint("see `banger doctor`")
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var v T
	res, err := c.request(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return v, nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&v); err != nil {
		return v, c.explain(ctx, err)
	}
	return v, nil
}

// below returns the path of what a selector names in a collection; "" when it names nothing, which
// request refuses. Dots would be taken for a place in the tree: "." and ".." are escaped too.
func below(collection, selector, rest string) string {
	if selector == "" {
		return ""
	}
	return "/v1/" + collection + "/" + strings.ReplaceAll(url.PathEscape(selector), ".", "%2E") + rest
}

func vmPath(selector, rest string) string { return below("vms", selector, rest) }

// Version returns the daemon's build.
func (c *Client) Version(ctx context.Context) (buildinfo.Info, error) {
	return call[buildinfo.Info](ctx, c, http.MethodGet, "/v1/version", nil)
}

// Status describes the daemon.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return call[api.Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Doctor examines the daemon's host.
func (c *Client) Doctor(ctx context.Context) ([]api.Check, error) {
	return call[[]api.Check](ctx, c, http.MethodGet, "/v1/doctor", nil)
}

// Upgrade asks the daemon to execute the build on disk if that is newer.
func (c *Client) Upgrade(ctx context.Context) (api.Upgrade, error) {
	return call[api.Upgrade](ctx, c, http.MethodPost, "/v1/daemon/upgrade", nil)
}

// VMs lists the caller's VMs by name.
func (c *Client) VMs(ctx context.Context) ([]api.VM, error) {
	return call[[]api.VM](ctx, c, http.MethodGet, "/v1/vms", nil)
}

// BriefVMs lists them with what a table shows and no more, which costs less where there are many. A daemon
// that does not know the difference sends all.
func (c *Client) BriefVMs(ctx context.Context) ([]api.VM, error) {
	return call[[]api.VM](ctx, c, http.MethodGet, "/v1/vms?brief=true", nil)
}

// VM returns one VM by name, id or id prefix, as all selectors below.
func (c *Client) VM(ctx context.Context, selector string) (api.VM, error) {
	return call[api.VM](ctx, c, http.MethodGet, vmPath(selector, ""), nil)
}

// CreateVM begins to create a VM.
func (c *Client) CreateVM(ctx context.Context, r api.CreateVM) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, "/v1/vms", r)
}

// StartVM begins to start a VM.
func (c *Client) StartVM(ctx context.Context, selector string) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, vmPath(selector, "/start"), nil)
}

// StopVM begins to shut a VM down.
func (c *Client) StopVM(ctx context.Context, selector string, r api.StopVM) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, vmPath(selector, "/stop"), r)
}

// KillVM begins to end a VM's hypervisor.
func (c *Client) KillVM(ctx context.Context, selector string) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, vmPath(selector, "/kill"), nil)
}

// SetVM begins to change what is asked of a VM.
func (c *Client) SetVM(ctx context.Context, selector string, r api.SetVM) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPatch, vmPath(selector, ""), r)
}

// Ports tells which ports of the host lead to a VM, and what listens in it.
func (c *Client) Ports(ctx context.Context, selector string) (api.Ports, error) {
	return call[api.Ports](ctx, c, http.MethodGet, vmPath(selector, "/ports"), nil)
}

// PlanVM tells what SetVM would alter.
func (c *Client) PlanVM(ctx context.Context, selector string, r api.SetVM) ([]api.Altered, error) {
	return call[[]api.Altered](ctx, c, http.MethodPost, vmPath(selector, "/plan"), r)
}

// DeleteVM begins to delete a VM.
func (c *Client) DeleteVM(ctx context.Context, selector string, r api.DeleteVM) (op.Operation, error) {
	how := "?force=" + strconv.FormatBool(r.Force) + "&now=" + strconv.FormatBool(r.Now)
	return call[op.Operation](ctx, c, http.MethodDelete, vmPath(selector, how), nil)
}

// Findings compares what the daemon knows with what the host has.
func (c *Client) Findings(ctx context.Context) ([]api.Finding, error) {
	return call[[]api.Finding](ctx, c, http.MethodGet, "/v1/repair", nil)
}

// Repair mends what differs, and returns what did.
func (c *Client) Repair(ctx context.Context) ([]api.Finding, error) {
	return call[[]api.Finding](ctx, c, http.MethodPost, "/v1/repair", nil)
}

// Usage tells what the parts of the state directory occupy.
func (c *Client) Usage(ctx context.Context) ([]api.StateUsage, error) {
	return call[[]api.StateUsage](ctx, c, http.MethodGet, "/v1/system/df", nil)
}

// Prune frees what nothing needs, and returns what that was.
func (c *Client) Prune(ctx context.Context, r api.Prune) ([]api.Pruned, error) {
	return call[[]api.Pruned](ctx, c, http.MethodPost, "/v1/system/prune", r)
}

// DNS tells whether the host's programs find VMs by name.
func (c *Client) DNS(ctx context.Context) (api.DNS, error) {
	return call[api.DNS](ctx, c, http.MethodGet, "/v1/dns", nil)
}

// SetUpDNS has the host's resolver ask the daemon.
func (c *Client) SetUpDNS(ctx context.Context, r api.DNSRequest) (api.DNSChange, error) {
	return call[api.DNSChange](ctx, c, http.MethodPost, "/v1/dns/setup", r)
}

// UndoDNS takes that back.
func (c *Client) UndoDNS(ctx context.Context, r api.DNSRequest) (api.DNSChange, error) {
	return call[api.DNSChange](ctx, c, http.MethodPost, "/v1/dns/undo", r)
}

// Explain says why a packet of a VM's would arrive somewhere, or would not.
func (c *Client) Explain(ctx context.Context, selector string, r api.Explain) (api.Explanation, error) {
	return call[api.Explanation](ctx, c, http.MethodPost, below("vms", selector, "/network/explain"), r)
}

// UninstallNetwork takes away what the daemon has changed of the host's network, and returns what that was.
func (c *Client) UninstallNetwork(ctx context.Context, r api.UninstallNetwork) ([]string, error) {
	return call[[]string](ctx, c, http.MethodPost, "/v1/system/uninstall-network", r)
}

// AdoptVM begins to take back a VM whose directory the daemon does not know.
func (c *Client) AdoptVM(ctx context.Context, r api.AdoptVM) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, "/v1/repair/adopt", r)
}

// ForkVM begins to make VMs of another.
func (c *Client) ForkVM(ctx context.Context, selector string, r api.ForkVM) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, below("vms", selector, "/fork"), r)
}

// Checkpoints lists what a VM can be taken back to, by name.
func (c *Client) Checkpoints(ctx context.Context, selector string) ([]api.Checkpoint, error) {
	return call[[]api.Checkpoint](ctx, c, http.MethodGet, below("vms", selector, "/checkpoints"), nil)
}

// MakeCheckpoint begins to keep a running VM as it is.
func (c *Client) MakeCheckpoint(ctx context.Context, selector string, r api.MakeCheckpoint) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, below("vms", selector, "/checkpoints"), r)
}

// RestoreCheckpoint begins to take a VM back.
func (c *Client) RestoreCheckpoint(ctx context.Context, selector, name string) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, below("vms", selector, "/checkpoints/"+url.PathEscape(name)+"/restore"), nil)
}

// DeleteCheckpoint removes one.
func (c *Client) DeleteCheckpoint(ctx context.Context, selector, name string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, below("vms", selector, "/checkpoints/"+url.PathEscape(name)), nil)
	return err
}

// Trash lists the caller's deleted VMs, the latest first.
func (c *Client) Trash(ctx context.Context) ([]api.Trashed, error) {
	return call[[]api.Trashed](ctx, c, http.MethodGet, "/v1/trash", nil)
}

// RestoreVM begins to take a VM back out of the trash.
func (c *Client) RestoreVM(ctx context.Context, selector string, r api.RestoreVM) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, below("trash", selector, "/restore"), r)
}

// DestroyVM begins to destroy a VM in the trash, with its disks.
func (c *Client) DestroyVM(ctx context.Context, selector string) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodDelete, below("trash", selector, ""), nil)
}

// PingVM asks a VM's agent.
func (c *Client) PingVM(ctx context.Context, selector string) (api.Ping, error) {
	return call[api.Ping](ctx, c, http.MethodGet, vmPath(selector, "/ping"), nil)
}

// Images lists the images by name.
func (c *Client) Images(ctx context.Context) ([]api.Image, error) {
	return call[[]api.Image](ctx, c, http.MethodGet, "/v1/images", nil)
}

// Image returns one image by name, id or id prefix.
func (c *Client) Image(ctx context.Context, selector string) (api.Image, error) {
	return call[api.Image](ctx, c, http.MethodGet, below("images", selector, ""), nil)
}

// PullImage begins to bootstrap an image.
func (c *Client) PullImage(ctx context.Context, r api.PullImage) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, "/v1/images/pull", r)
}

// WarmImage begins to prepare a snapshot that creates of an image go on from.
func (c *Client) WarmImage(ctx context.Context, selector string, r api.WarmImage) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, below("images", selector, "/warm"), r)
}

// ImportImage begins to make an image of the tree in tar. The upload goes on in the background, until
// the operation has ended or ctx is done: follow the operation.
func (c *Client) ImportImage(ctx context.Context, r api.ImportImage, tar io.Reader) (op.Operation, error) {
	v := url.Values{"name": {r.Name}, "kernel_from": {r.KernelFrom}, "source": {r.Source}}
	res, err := c.request(ctx, http.MethodPost, "/v1/images/import?"+v.Encode(), tar) //nolint:bodyclose // the goroutine below closes it
	if err != nil {
		return op.Operation{}, err
	}
	// The daemon answers at once and ends its answer when it has the tree; the transport would stop
	// sending if the answer were closed before.
	lines := bufio.NewReader(res.Body)
	first, err := lines.ReadBytes('\n')
	var o op.Operation
	if err == nil {
		err = json.Unmarshal(first, &o)
	}
	if err != nil {
		return o, errors.Join(c.explain(ctx, err), res.Body.Close())
	}
	go func() {
		_, _ = io.Copy(io.Discard, lines) // how it ended is the operation's to tell
		_ = res.Body.Close()
	}()
	return o, nil
}

// DeleteImage removes an image that no VM uses.
func (c *Client) DeleteImage(ctx context.Context, selector string) error {
	_, err := call[struct{}](ctx, c, http.MethodDelete, below("images", selector, ""), nil)
	return err
}

// Operations lists the caller's operations, newest first.
func (c *Client) Operations(ctx context.Context) ([]op.Operation, error) {
	return call[[]op.Operation](ctx, c, http.MethodGet, "/v1/operations", nil)
}

// Operation returns one operation.
func (c *Client) Operation(ctx context.Context, id op.ID) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodGet, below("operations", string(id), ""), nil)
}

// CancelOperation calls an operation off. It ends when what it had made is undone.
func (c *Client) CancelOperation(ctx context.Context, id op.ID) (op.Operation, error) {
	return call[op.Operation](ctx, c, http.MethodPost, below("operations", string(id), "/cancel"), nil)
}

// Dial opens a TCP connection to a port of a VM, on its loopback or another address of its own. The connection can be closed for writing
// alone.
func (c *Client) Dial(ctx context.Context, selector string, port int) (net.Conn, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	br := bufio.NewReader(conn)
	if err := c.upgrade(ctx, conn, br, api.Stream, vmPath(selector, "/dial?port="+strconv.Itoa(port)), nil); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &stream{Conn: conn, r: br}, nil
}

// SSH opens a connection to the SSH server of a VM's agent. It does not pass through the daemon, and outlives that.
func (c *Client) SSH(ctx context.Context, selector string) (*os.File, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	defer conn.Close()
	r := &fdpass.Reader{Conn: conn.(*net.UnixConn)}
	defer func() { _ = r.Close() }() // nobody has it
	br := bufio.NewReader(r)
	carrier := func() error {
		_, err := br.ReadByte()
		return err
	}
	if err := c.upgrade(ctx, conn, br, api.Descriptor, vmPath(selector, "/ssh"), carrier); err != nil {
		return nil, err
	}
	f, err := r.Take()
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the daemon handed over no connection: %w", err).WithOp("connect to VM", selector).
			WithHint("its socket must be the daemon's own: one that is forwarded from another machine hands nothing over")
	}
	return f, nil
}

// upgrade makes something else of a connection, of which br reads, and then does what more is to be done before ctx ends.
func (c *Client) upgrade(ctx context.Context, conn net.Conn, br *bufio.Reader, protocol, path string, then func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := c.askUpgrade(ctx, conn, br, protocol, path)
	if err == nil && then != nil {
		if err = then(); err != nil {
			err = c.explain(ctx, err)
		}
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	return err
}

func (c *Client) askUpgrade(ctx context.Context, conn net.Conn, br *bufio.Reader, protocol, path string) error {
	req, err := newRequest(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	if err := req.Write(conn); err != nil {
		return c.explain(ctx, err)
	}
	res, err := http.ReadResponse(br, req) //nolint:bodyclose // closing the connection is
	if err != nil {
		return c.explain(ctx, err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return answered(res)
	}
	return nil
}

// stream reads first what came with the answer.
type stream struct {
	net.Conn
	r *bufio.Reader
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// CloseWrite tells the other end that nothing more will come.
func (s *stream) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
