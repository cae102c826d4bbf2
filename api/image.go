package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hull/engine"
	"hull/errdef"
	"hull/image"
	"hull/registry"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	wire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// listImages is GET /images/json.
func (s *server) listImages(q *request) error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	list, err := s.engine.ListImages(q.Context(), filters)
	if err != nil {
		return err
	}
	used := q.flag("last-used") // our own: it takes a look at each image
	out := make([]summary, 0, len(list))
	for _, i := range list {
		sum := summary{Summary: imageSummary(&i)}
		if used {
			sum.LastUsed = unixTime(s.engine.LastUse(i.ID))
		}
		out = append(out, sum)
	}
	return answerList(q, q.forVersion(out))
}

// summary is a line of a list of images with what Docker does not know, or knows no longer.
type summary struct {
	wire.Summary
	VirtualSize int64 `json:",omitempty"` // see virtualSizes
	LastUsed    int64 `json:",omitempty"` // seconds since 1970
}

// virtualSizes is the API version that left VirtualSize out. Clients of before count with it, not with Size: without it
// `docker system df` of Debian 12's client says that 200% can be reclaimed.
const virtualSizes = 44

// forVersion is list as the version that q asks for has it.
func (q *request) forVersion(list []summary) []summary {
	if q.minor < virtualSizes {
		for i := range list {
			list[i].VirtualSize = list[i].Size
		}
	}
	return list
}

func unixTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// imageSummary is a line of a list; what is shared with others and who uses it takes longer to find out.
func imageSummary(i *image.Summary) wire.Summary {
	return wire.Summary{
		ID: i.ID, RepoTags: notNil(i.RepoTags), RepoDigests: notNil(i.RepoDigests), Created: i.Created.Unix(),
		Size: i.Size, SharedSize: -1, Containers: -1, Labels: i.Labels,
	}
}

func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// inspectImage is GET /images/{name...}/json.
func (s *server) inspectImage(q *request) error {
	platform, err := q.platform()
	if err != nil {
		return err
	}
	img, err := s.engine.ImageFor(q.Context(), q.name, platform)
	if err != nil {
		return err
	}
	c := &img.Config
	out := wire.InspectResponse{
		ID: img.ID, RepoTags: []string{}, RepoDigests: []string{}, Comment: c.Comment, Author: c.Author,
		Architecture: c.Architecture, Variant: c.Variant, Os: c.OS, OsVersion: c.OSVersion, Size: img.Size,
		RootFS: wire.RootFS{Type: "layers", Layers: c.RootFS.DiffIDs},
		Config: runConfig(&c.Run), GraphDriver: imageDriver(img),
		Metadata: wire.Metadata{LastTagTime: s.engine.ImageTagged(img.ID)},
	}
	if c.Created != nil {
		out.Created = c.Created.Format(time.RFC3339Nano)
	}
	all, err := s.engine.ListImages(q.Context(), nil)
	if err != nil {
		return err
	}
	for _, i := range all {
		if i.ID == img.ID {
			out.RepoTags, out.RepoDigests = notNil(i.RepoTags), notNil(i.RepoDigests)
		}
	}
	detail := inspected{InspectResponse: out, LastUsed: s.engine.LastUse(img.ID)}
	if q.minor < virtualSizes {
		detail.VirtualSize = img.Size
	}
	return q.answer(http.StatusOK, detail)
}

// inspected is an image with what Docker does not know, or knows no longer.
type inspected struct {
	wire.InspectResponse
	VirtualSize int64 `json:",omitempty"`
	LastUsed    time.Time
}

// imageDriver is where the layers are, as overlayfs names them.
func imageDriver(img *image.Image) *storage.DriverData {
	data := map[string]string{}
	for i, l := range slices.Backward(img.Layers) {
		switch {
		case i == len(img.Layers)-1:
			data["UpperDir"] = l.Dir
		case data["LowerDir"] == "":
			data["LowerDir"] = l.Dir
		default:
			data["LowerDir"] += ":" + l.Dir
		}
	}
	return &storage.DriverData{Name: driver, Data: data}
}

// platform reads the parameter of calls that are about one platform; "" is the default.
func (q *request) platform() (string, error) {
	list, err := q.platforms("platform")
	if err == nil && len(list) > 1 {
		err = errdef.Invalid("only one platform can be asked for")
	}
	return strings.Join(list, ""), err
}

func runConfig(r *image.Run) *dockerspec.DockerOCIImageConfig {
	out := &dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: r.User, ExposedPorts: r.ExposedPorts, Env: r.Env, Entrypoint: r.Entrypoint, Cmd: r.Cmd,
			Volumes: r.Volumes, WorkingDir: r.WorkingDir, Labels: r.Labels, StopSignal: r.StopSignal,
		},
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{OnBuild: r.OnBuild, Shell: r.Shell},
	}
	if h := r.Healthcheck; h != nil {
		out.Healthcheck = &dockerspec.HealthcheckConfig{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return out
}

// imageHistory is GET /images/{name...}/history.
func (s *server) imageHistory(q *request) error {
	platform, err := q.platform()
	if err != nil {
		return err
	}
	lines, err := s.engine.ImageHistory(q.Context(), q.name, platform)
	if err != nil {
		return err
	}
	out := make([]wire.HistoryResponseItem, 0, len(lines))
	for _, l := range lines {
		item := wire.HistoryResponseItem{ID: l.ID, CreatedBy: l.CreatedBy, Comment: l.Comment, Size: l.Size, Tags: notNil(l.Tags)}
		if l.Created != nil {
			item.Created = l.Created.Unix()
		}
		out = append(out, item)
	}
	return q.answer(http.StatusOK, out)
}

func (s *server) tagImage(q *request) error {
	target := q.query("repo")
	if target == "" {
		return errdef.Invalid("invalid reference format: repository name must not be empty")
	}
	if tag := q.query("tag"); tag != "" {
		target += ":" + tag
	}
	if err := s.engine.TagImage(q.Context(), q.name, target); err != nil {
		return err
	}
	return q.empty(http.StatusCreated)
}

func (s *server) removeImage(q *request) error {
	removed, err := s.engine.RemoveImage(q.Context(), q.name, q.removeImage())
	if err != nil {
		return err
	}
	q.saved(removed.Saved)
	return q.answer(http.StatusOK, deletedImages(removed.Deleted))
}

func (q *request) removeImage() engine.RemoveImageOptions {
	return engine.RemoveImageOptions{
		Force: q.flag("force"), NoPrune: q.flag("noprune"), Now: !q.flagOr("trash", true), Batch: q.batch(),
	}
}

// removableImage is GET /hull/v1/images/{name}/removable?after=NAME&after=NAME, our own.
func (s *server) removableImage(q *request) error {
	o := q.removeImage()
	o.After = q.form["after"]
	list, err := s.engine.ImageRemoval(q.Context(), q.name, o)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, planOf(list))
}

// message is one line of a stream that tells how a long request gets on.
type message struct {
	Stream      string         `json:"stream,omitempty"`
	Status      string         `json:"status,omitempty"`
	ID          string         `json:"id,omitempty"`
	Progress    *progress      `json:"progressDetail,omitempty"`
	Aux         any            `json:"aux,omitempty"`
	ErrorDetail *messageDetail `json:"errorDetail,omitempty"`
	Error       string         `json:"error,omitempty"`
}

type progress struct {
	Current int64 `json:"current,omitempty"`
	Total   int64 `json:"total,omitempty"`
}

type messageDetail struct {
	Code    int    `json:"code,omitempty"` // 400 when what was sent is at fault
	Message string `json:"message"`
}

// messages sends such lines. Until the first there can still be an error by status code.
type messages struct {
	q    *request
	peer *peerConn // on which lines travel beside what is for a peer; nil: they are the answer's body

	mu    sync.Mutex // protects the following, and keeps lines whole
	begun bool
}

func (m *messages) send(msg message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peer != nil {
		m.peer.message(msg)
		return
	}
	if !m.begun {
		m.begun = true
		m.q.w.Header().Set("Content-Type", "application/json")
	}
	_ = json.NewEncoder(m.q.w).Encode(msg)
	_ = http.NewResponseController(m.q.w).Flush()
}

// fail ends the stream with err, or hands it on if nothing was sent.
func (m *messages) fail(err error) error {
	m.mu.Lock()
	begun := m.begun
	m.mu.Unlock()
	if !begun {
		return err
	}
	detail := &messageDetail{Message: err.Error()}
	if errors.Is(err, errdef.ErrInvalid) {
		detail.Code = http.StatusBadRequest
	}
	m.send(message{Error: err.Error(), ErrorDetail: detail})
	return nil
}

// loadImages is POST /images/load; the body is an archive of docker save or an OCI layout.
func (s *server) loadImages(q *request) error {
	m := &messages{q: q}
	want, err := q.platforms("platform")
	if err != nil {
		return err
	}
	o := image.LoadOptions{Platforms: want}
	if !q.flag("quiet") {
		o.Progress = func(p image.Progress) {
			m.send(message{ID: p.ID, Status: p.Action, Progress: &progress{p.Current, p.Total}})
		}
	}
	loaded, err := s.engine.LoadImages(q.Context(), q.Body, o)
	if err != nil {
		return m.fail(err)
	}
	for _, l := range loaded {
		if l.Ref != "" {
			m.send(message{Stream: "Loaded image: " + l.Ref + "\n"})
		} else {
			m.send(message{Stream: "Loaded image ID: " + l.ID + "\n"})
		}
	}
	return nil
}

// saveImages is GET /images/get and GET /images/{name}/get. Where Docker has one format, format is podman's word for
// another.
func (s *server) saveImages(q *request) error {
	want, err := q.platforms("platform")
	if err != nil {
		return err
	}
	names := q.form["names"]
	if q.name != "" {
		names = []string{q.name}
	}
	if len(names) == 0 {
		return errdef.Invalid("no image is named")
	}
	logins, err := q.logins()
	if err != nil {
		return err
	}
	remote := engine.Remote{Credential: func(name string) registry.Credential { return logins[name] }}
	out, err := s.engine.SaveImages(q.Context(), names, image.SaveOptions{Platforms: want, Format: q.query("format")}, remote)
	if err != nil {
		return err
	}
	defer out.Close()
	q.w.Header().Set("Content-Length", strconv.FormatInt(out.Size, 10))
	return q.tarFrom(func(w io.Writer) (int64, error) {
		n, err := out.WriteTo(w)
		if err != nil {
			s.log.Warn("save images", "names", names, "error", err)
		}
		return n, err
	})
}

// platforms reads a parameter that may come several times, each with one platform: JSON, or os/arch[/variant].
func (q *request) platforms(key string) ([]string, error) {
	var names []string
	for _, v := range q.form[key] {
		if strings.HasPrefix(v, "{") {
			var p ocispec.Platform
			if err := parse([]byte(v), &p); err != nil {
				return nil, errdef.Invalid("%s: %w", key, err)
			}
			v = p.OS + "/" + p.Architecture
			if p.Variant != "" {
				v += "/" + p.Variant
			}
		}
		if v != "" {
			names = append(names, v)
		}
	}
	return names, nil
}

// createImage is POST /images/create: an import of the body, or a pull.
func (s *server) createImage(q *request) error {
	if from := q.query("fromImage"); from != "" {
		return s.pullImage(q, from, q.query("tag"))
	}
	m := &messages{q: q}
	ref := q.query("repo")
	if tag := q.query("tag"); ref != "" && tag != "" {
		ref += ":" + tag
	}
	o := image.ImportOptions{Ref: ref, Message: q.query("message"), Changes: q.form["changes"], Platform: q.query("platform")}
	var id string
	var err error
	if src := q.query("fromSrc"); src == "-" {
		id, err = s.engine.ImportImage(q.Context(), q.Body, o)
	} else {
		if !strings.Contains(src, "://") {
			src = "http://" + src
		}
		m.send(message{Status: "Downloading from " + src})
		id, err = s.engine.ImportURL(q.Context(), src, o)
	}
	if err != nil {
		return m.fail(err)
	}
	m.send(message{Status: id})
	return nil
}
