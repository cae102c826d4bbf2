package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"hull/errdef"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerPath escapes the name or id of a container. Docker shows names with a leading slash and takes them so.
func containerPath(id string, rest string) (string, error) {
	name := strings.TrimPrefix(id, "/")
	// "." and ".." would be resolved away as path elements on their way.
	if strings.TrimSpace(name) == "" || name == "." || name == ".." {
		return "", errdef.Invalid("invalid container name or ID: %q", id)
	}
	return "/containers/" + url.PathEscape(name) + rest, nil
}

func (c *Client) container(ctx context.Context, method, id, rest string, q url.Values, in, out any) error {
	p, err := containerPath(id, rest)
	if err != nil {
		return err
	}
	return c.call(ctx, request{method: method, path: p, query: q, json: in}, out)
}

// Filters narrow a list: each key's values are alternatives, keys must all match.
type Filters map[string][]string

func (f Filters) query(q url.Values) {
	if len(f) == 0 {
		return
	}
	// The form every version of the API reads: a set of values under each key.
	sets := map[string]map[string]bool{}
	for k, vs := range f {
		sets[k] = map[string]bool{}
		for _, v := range vs {
			sets[k][v] = true
		}
	}
	b, err := json.Marshal(sets)
	if err == nil { // strings and bools always marshal
		q.Set("filters", string(b))
	}
}

// CreateOptions of ContainerCreate.
type CreateOptions struct {
	Name     string // empty: the server chooses one
	Platform string
	// StartSoon says that ContainerStart follows, so that Hull prepares for it; other servers ignore it.
	StartSoon bool
}

// ContainerCreate makes a container.
func (c *Client) ContainerCreate(ctx context.Context, o CreateOptions, req container.CreateRequest) (container.CreateResponse, error) {
	q := url.Values{}
	if o.Name != "" {
		q.Set("name", o.Name)
	}
	if o.Platform != "" {
		q.Set("platform", o.Platform)
	}
	body := map[string]any{}
	if req.Config != nil {
		set(body, reflect.ValueOf(*req.Config))
	}
	host, networking := map[string]any{}, map[string]any{}
	if req.HostConfig != nil {
		set(host, reflect.ValueOf(*req.HostConfig))
		body["HostConfig"] = host
	}
	if req.NetworkingConfig != nil {
		set(networking, reflect.ValueOf(*req.NetworkingConfig))
		body["NetworkingConfig"] = networking
	}
	var out container.CreateResponse
	err := c.call(ctx, request{method: http.MethodPost, path: "/containers/create", query: q, json: body, startSoon: o.StartSoon}, &out)
	return out, err
}

// set adds the fields of a struct that are not zero, by their names in JSON. A request for a container has some 150
// fields, few of them set, and encoding/json looks at the types of all of them before the first: half a millisecond.
func set(m map[string]any, v reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		x := v.Field(i)
		if x.IsZero() {
			continue
		}
		f := t.Field(i)
		if f.Anonymous {
			set(m, x)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		m[name] = x.Interface()
	}
}

// ContainerStart starts a container; one that runs already is no error.
func (c *Client) ContainerStart(ctx context.Context, id string) error {
	return ignoreNotModified(c.container(ctx, http.MethodPost, id, "/start", nil, nil, nil))
}

// StopOptions of ContainerStop and ContainerRestart. A nil Timeout is the container's own, -1 waits for ever.
type StopOptions struct {
	Signal  string
	Timeout *int
}

func (o StopOptions) query() url.Values {
	q := url.Values{}
	if o.Signal != "" {
		q.Set("signal", o.Signal)
	}
	if o.Timeout != nil {
		q.Set("t", strconv.Itoa(*o.Timeout))
	}
	return q
}

// ContainerStop returns when the container no longer runs; one that did not is no error.
func (c *Client) ContainerStop(ctx context.Context, id string, o StopOptions) error {
	return ignoreNotModified(c.container(ctx, http.MethodPost, id, "/stop", o.query(), nil, nil))
}

// ContainerRestart stops and starts a container.
func (c *Client) ContainerRestart(ctx context.Context, id string, o StopOptions) error {
	return c.container(ctx, http.MethodPost, id, "/restart", o.query(), nil, nil)
}

// ContainerKill sends a signal to the first process of a container; empty is SIGKILL.
func (c *Client) ContainerKill(ctx context.Context, id, signal string) error {
	q := url.Values{}
	if signal != "" {
		q.Set("signal", signal)
	}
	return c.container(ctx, http.MethodPost, id, "/kill", q, nil, nil)
}

// ContainerPause freezes the processes of a container.
func (c *Client) ContainerPause(ctx context.Context, id string) error {
	return c.container(ctx, http.MethodPost, id, "/pause", nil, nil, nil)
}

// ContainerUnpause lets the processes of a paused container go on.
func (c *Client) ContainerUnpause(ctx context.Context, id string) error {
	return c.container(ctx, http.MethodPost, id, "/unpause", nil, nil, nil)
}

// ContainerUpdate changes limits and the restart policy of a container; what is zero stays as it is.
func (c *Client) ContainerUpdate(ctx context.Context, id string, change container.UpdateConfig) (container.UpdateResponse, error) {
	body := map[string]any{}
	set(body, reflect.ValueOf(change))
	var out container.UpdateResponse
	err := c.container(ctx, http.MethodPost, id, "/update", nil, body, &out)
	return out, err
}

// ContainerTop lists the processes of a container; psArgs choose columns as those of ps do.
func (c *Client) ContainerTop(ctx context.Context, id, psArgs string) (container.TopResponse, error) {
	q := url.Values{}
	text(q, "ps_args", psArgs)
	var out container.TopResponse
	err := c.container(ctx, http.MethodGet, id, "/top", q, nil, &out)
	return out, err
}

// ContainerStats takes one sample of what a container uses. With oneShot there is no sample before it to compare with,
// and no waiting for one.
func (c *Client) ContainerStats(ctx context.Context, id string, oneShot bool) (container.StatsResponse, error) {
	q := url.Values{"stream": {"0"}}
	flag(q, "one-shot", oneShot)
	var out container.StatsResponse
	err := c.container(ctx, http.MethodGet, id, "/stats", q, nil, &out)
	return out, err
}

// ContainerRename gives a container another name.
func (c *Client) ContainerRename(ctx context.Context, id, name string) error {
	return c.container(ctx, http.MethodPost, id, "/rename", url.Values{"name": {name}}, nil, nil)
}

// RemoveOptions of ContainerRemove.
type RemoveOptions struct {
	Removal
	Force   bool // kill it first
	Volumes bool // its anonymous volumes too
	Link    bool // remove the link of that name, not the container
}

func (o *RemoveOptions) query() url.Values {
	q := url.Values{}
	flag(q, "force", o.Force)
	flag(q, "v", o.Volumes)
	flag(q, "link", o.Link)
	o.Removal.query(q)
	return q
}

// ContainerRemove removes a container. saved is for how long it can be restored; 0 is not at all.
func (c *Client) ContainerRemove(ctx context.Context, id string, o RemoveOptions) (saved time.Duration, err error) {
	p, err := containerPath(id, "")
	if err != nil {
		return 0, err
	}
	return c.remove(ctx, &o.Removal, request{method: http.MethodDelete, path: p, query: o.query()}, nil)
}

// ContainerRemoval is what ContainerRemove would do.
func (c *Client) ContainerRemoval(ctx context.Context, id string, o RemoveOptions) (Plan, error) {
	p, err := containerPath(id, "")
	if err != nil {
		return Plan{}, err
	}
	return c.removal(ctx, p, o.query())
}

// Waiting is a wait the server has begun.
type Waiting struct {
	ctx  context.Context
	body io.ReadCloser
}

// ContainerWait returns once the server is waiting, so that an exit from then on is not missed.
func (c *Client) ContainerWait(ctx context.Context, id string, until container.WaitCondition) (*Waiting, error) {
	p, err := containerPath(id, "/wait")
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	if until != container.WaitConditionNotRunning { // the default
		q.Set("condition", string(until))
	}
	resp, err := c.send(ctx, request{method: http.MethodPost, path: p, query: q, whole: true})
	if err != nil {
		return nil, err
	}
	return &Waiting{ctx, resp.Body}, nil
}

// Status blocks until the wait is over and returns the exit status. It can be called once.
func (w *Waiting) Status() (container.WaitResponse, error) {
	defer w.body.Close()
	var out container.WaitResponse
	if err := json.NewDecoder(w.body).Decode(&out); err != nil {
		return out, cause(w.ctx, decodeError(err))
	}
	return out, nil
}

// Close gives the wait up.
func (w *Waiting) Close() { w.body.Close() }

// ListOptions of ContainerList. A Limit above zero gives the newest of all.
type ListOptions struct {
	All     bool
	Size    bool
	Limit   int
	Filters Filters
}

// ContainerSummary is a line of a list of containers: as in ImageSummary, what is shown somewhere.
type ContainerSummary struct {
	ID                      string `json:"Id"`
	Names                   []string
	Image, ImageID, Command string
	Created                 int64 // seconds since 1970
	Ports                   []container.PortSummary
	SizeRw, SizeRootFs      int64
	Labels                  map[string]string
	State                   container.ContainerState
	Status                  string
	ImageManifestDescriptor struct{ Platform *ocispec.Platform }
	NetworkSettings         struct{ Networks map[string]struct{} }
	Mounts                  []struct{ Name, Source, Driver string }
}

// ContainerList lists containers, newest first.
func (c *Client) ContainerList(ctx context.Context, o ListOptions) ([]ContainerSummary, error) {
	q := url.Values{}
	flag(q, "all", o.All)
	flag(q, "size", o.Size)
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	o.Filters.query(q)
	return list[ContainerSummary](ctx, c, request{method: http.MethodGet, path: "/containers/json", query: q})
}

// ContainerInspect returns what is known of a container, also as the server wrote it.
func (c *Client) ContainerInspect(ctx context.Context, id string, size bool) (container.InspectResponse, json.RawMessage, error) {
	q := url.Values{}
	flag(q, "size", size)
	p, err := containerPath(id, "/json")
	if err != nil {
		return container.InspectResponse{}, nil, err
	}
	return inspect[container.InspectResponse](ctx, c, p, q)
}

// LogsOptions of ContainerLogs. Since and Until are seconds[.nanoseconds] since the epoch; Tail is a number or "all".
type LogsOptions struct {
	Stdout, Stderr     bool
	Follow, Timestamps bool
	Details            bool
	Since, Until, Tail string
}

// ContainerLogs streams what a container wrote.
func (c *Client) ContainerLogs(ctx context.Context, id string, o LogsOptions) (*Output, error) {
	p, err := containerPath(id, "/logs")
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	flag(q, "stdout", o.Stdout)
	flag(q, "stderr", o.Stderr)
	flag(q, "follow", o.Follow)
	flag(q, "timestamps", o.Timestamps)
	flag(q, "details", o.Details)
	text(q, "since", o.Since)
	text(q, "until", o.Until)
	text(q, "tail", o.Tail)
	resp, err := c.send(ctx, request{method: http.MethodGet, path: p, query: q})
	if err != nil {
		return nil, err
	}
	if ct := resp.Header.Get("Content-Type"); ct != types.MediaTypeRawStream && ct != types.MediaTypeMultiplexedStream {
		// A server before API 1.42 does not say which it is.
		info, _, err := c.ContainerInspect(ctx, id, false)
		if err != nil {
			resp.Body.Close()
			return nil, err
		}
		return &Output{resp.Body, info.Config == nil || !info.Config.Tty}, nil
	}
	return &Output{resp.Body, multiplexed(resp)}, nil
}

// AttachOptions of ContainerAttach.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs                  bool // what was written so far comes first
	DetachKeys            string
}

// ContainerAttach connects to the stdio of a container; one that has not started yet will find the caller there.
func (c *Client) ContainerAttach(ctx context.Context, id string, o AttachOptions) (*Stream, error) {
	p, err := containerPath(id, "/attach")
	if err != nil {
		return nil, err
	}
	q := url.Values{"stream": {"1"}}
	flag(q, "stdin", o.Stdin)
	flag(q, "stdout", o.Stdout)
	flag(q, "stderr", o.Stderr)
	flag(q, "logs", o.Logs)
	text(q, "detachKeys", o.DetachKeys)
	return c.hijack(ctx, request{method: http.MethodPost, path: p, query: q, upgrade: true})
}

// ContainerResize tells a container's terminal its size.
func (c *Client) ContainerResize(ctx context.Context, id string, width, height int) error {
	return c.container(ctx, http.MethodPost, id, "/resize", sizeQuery(width, height), nil, nil)
}

func (c *Client) hijack(ctx context.Context, r request) (*Stream, error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	s, ok := resp.Body.(*Stream)
	if !ok {
		resp.Body.Close()
		return nil, errdef.Unavailable("%s answered %s instead of opening a stream", c.name(), resp.Status)
	}
	return s, nil
}

func ignoreNotModified(err error) error {
	if errdef.Kind(err) == errdef.ErrNotModified {
		return nil
	}
	return err
}

func sizeQuery(width, height int) url.Values {
	return url.Values{"w": {strconv.Itoa(width)}, "h": {strconv.Itoa(height)}}
}

func flag(q url.Values, key string, on bool) {
	if on {
		q.Set(key, "1")
	}
}

func text(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

// decode reads a whole answer, keeping numbers it has no field for out of the way.
func decode(raw json.RawMessage, out any) error {
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(out); err != nil {
		return decodeError(err)
	}
	return nil
}
