package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"hull/engine"
	"hull/errdef"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/storage"
)

// driver is what Docker calls the storage driver.
const driver = "overlayfs"

// listContainers is GET /containers/json.
func (s *server) listContainers(q *request) error {
	limit, err := q.number("limit", 0)
	if err != nil {
		return err
	}
	filters, err := q.filters()
	if err != nil {
		return err
	}
	list, err := s.engine.List(q.Context(), engine.ListOptions{All: q.flag("all"), Limit: max(limit, 0), Filters: filters})
	if err != nil {
		return err
	}
	now := time.Now()
	out := make([]container.Summary, 0, len(list))
	for _, c := range list {
		sum := s.summary(c, now)
		if q.flag("size") {
			if sum.SizeRw, sum.SizeRootFs, err = s.engine.Size(q.Context(), c); err != nil {
				return err
			}
		}
		out = append(out, sum)
	}
	return answerList(q, out)
}

func (s *server) summary(c *engine.Container, now time.Time) container.Summary {
	out := container.Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Image: c.Config.Image, ImageID: c.Image,
		Command: command(c), Created: c.Created.Unix(), Ports: portList(c),
		Labels: c.Config.Labels, State: container.ContainerState(c.State.Status), Status: statusLine(&c.State, now),
		Health:          healthSummary(&c.State),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: s.endpoints(c)},
		Mounts:          s.mountPoints(c),
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.HostConfig.NetworkMode = c.Host.Network
	out.HostConfig.Annotations = c.Host.Annotations
	return out
}

// command is the one line of ps: words with spaces are quoted so that one can tell them apart.
func command(c *engine.Container) string {
	path, args := argv(c)
	words := make([]string, 0, len(args)+1)
	for _, w := range append([]string{path}, args...) {
		if strings.ContainsAny(w, " \t\n") {
			w = "'" + w + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// argv is the command of the container's first process.
func argv(c *engine.Container) (path string, args []string) {
	all := append(append([]string{}, c.Config.Entrypoint...), c.Config.Cmd...)
	if len(all) == 0 {
		return "", []string{}
	}
	return all[0], all[1:]
}

// statusLine is the STATUS column.
func statusLine(s *engine.State, now time.Time) string {
	switch s.Status {
	case engine.StatusRunning:
		return "Up " + units.HumanDuration(now.Sub(s.StartedAt)) + healthWord(s)
	case engine.StatusPaused:
		return "Up " + units.HumanDuration(now.Sub(s.StartedAt)) + " (Paused)"
	case engine.StatusRestarting:
		return "Restarting (" + strconv.Itoa(s.ExitCode) + ") " + units.HumanDuration(now.Sub(s.FinishedAt)) + " ago"
	case engine.StatusExited:
		if s.FinishedAt.IsZero() {
			return "Exited (" + strconv.Itoa(s.ExitCode) + ")"
		}
		return "Exited (" + strconv.Itoa(s.ExitCode) + ") " + units.HumanDuration(now.Sub(s.FinishedAt)) + " ago"
	case engine.StatusRemoving:
		return "Removal In Progress"
	case engine.StatusDead:
		return "Dead"
	}
	return "Created"
}

// mountPoints are the mounts as Docker shows them: those of --tmpfs only in HostConfig.
func (s *server) mountPoints(c *engine.Container) []container.MountPoint {
	out := []container.MountPoint{}
	for _, m := range c.Mounts {
		if m.Flag {
			continue
		}
		p := container.MountPoint{
			Type: mount.Type(m.Type), Name: m.Name, Source: m.Source, Destination: m.Target, Mode: m.Written,
			RW: !m.ReadOnly && m.Type != "image", Propagation: mount.Propagation(m.Propagation),
		}
		switch m.Type {
		case "bind":
			if p.Propagation == "" {
				p.Propagation = mount.PropagationRPrivate
			}
		case "volume":
			p.Source, p.Driver = s.engine.VolumePath(m.Name), "local"
		}
		out = append(out, p)
	}
	return out
}

// inspectContainer is GET /containers/{name}/json.
func (s *server) inspectContainer(q *request) error {
	c, err := s.engine.Inspect(q.Context(), q.name)
	if err != nil {
		return err
	}
	f := s.engine.Files(c)
	path, args := argv(c)
	var out struct {
		container.InspectResponse
		NetworkSettings *networkSettings // hides the one above
	}
	out.NetworkSettings = s.networkSettings(c)
	out.InspectResponse = container.InspectResponse{
		ID: c.ID, Created: c.Created.Format(time.RFC3339Nano), Path: path, Args: args, State: wireState(&c.State),
		RestartCount: c.State.Restarts, Image: c.Image, ResolvConfPath: f.ResolvConf, HostnamePath: f.Hostname, HostsPath: f.Hosts, LogPath: f.Log,
		Name: "/" + c.Name, Driver: driver, Platform: "linux",
		HostConfig: wireHost(&c.Host), Config: wireConfig(&c.Config), Mounts: s.mountPoints(c),
		GraphDriver: &storage.DriverData{Name: driver, Data: map[string]string{
			"LowerDir": strings.Join(f.Lower, ":"), "UpperDir": f.Upper, "WorkDir": f.Work,
		}},
	}
	if q.flag("size") {
		rw, root, err := s.engine.Size(q.Context(), c)
		if err != nil {
			return err
		}
		out.SizeRw, out.SizeRootFs = &rw, &root
	}
	return q.answer(http.StatusOK, out)
}

func wireState(s *engine.State) *container.State {
	return &container.State{
		Status: container.ContainerState(s.Status), Running: s.Status == engine.StatusRunning || s.Status == engine.StatusPaused || s.Status == engine.StatusRestarting,
		Restarting: s.Status == engine.StatusRestarting, Health: wireHealth(s),
		Paused: s.Status == engine.StatusPaused, Dead: s.Status == engine.StatusDead,
		OOMKilled: s.OOMKilled, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: s.StartedAt.UTC().Format(time.RFC3339Nano), FinishedAt: s.FinishedAt.UTC().Format(time.RFC3339Nano),
	}
}

func (s *server) startContainer(q *request) error {
	warnings, err := s.engine.Start(q.Context(), q.name)
	if err != nil {
		return err
	}
	q.warn(warnings)
	return q.empty(http.StatusNoContent)
}

func (s *server) stopContainer(q *request) error {
	o, err := q.stopOptions()
	if err != nil {
		return err
	}
	if err := s.engine.Stop(q.Context(), q.name, o); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (s *server) restartContainer(q *request) error {
	o, err := q.stopOptions()
	if err != nil {
		return err
	}
	warnings, err := s.engine.Restart(q.Context(), q.name, o)
	if err != nil {
		return err
	}
	q.warn(warnings)
	return q.empty(http.StatusNoContent)
}

func (q *request) stopOptions() (engine.StopOptions, error) {
	o := engine.StopOptions{Signal: q.query("signal")}
	if q.query("t") == "" {
		return o, nil
	}
	t, err := q.number("t", 0)
	o.Timeout = &t
	return o, err
}

func (s *server) killContainer(q *request) error {
	if err := s.engine.Kill(q.Context(), q.name, q.query("signal")); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (s *server) renameContainer(q *request) error {
	if err := s.engine.Rename(q.Context(), q.name, q.query("name")); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

func (s *server) removeContainer(q *request) error {
	if q.flag("link") {
		return errdef.NotImplemented("links are not there")
	}
	saved, err := s.engine.Remove(q.Context(), q.name, q.removeContainer())
	if err != nil {
		return err
	}
	q.saved(saved)
	return q.empty(http.StatusNoContent)
}

func (q *request) removeContainer() engine.RemoveOptions {
	return engine.RemoveOptions{
		Force: q.flag("force"), Volumes: q.flag("v"), Now: !q.flagOr("trash", true), Batch: q.batch(),
	}
}

// removableContainer is GET /hull/v1/containers/{name}/removable, our own.
func (s *server) removableContainer(q *request) error {
	list, err := s.engine.ContainerRemoval(q.Context(), q.name, q.removeContainer())
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, planOf(list))
}

// waitContainer is POST /containers/{name}/wait. The header goes out when no exit can be missed any more: clients
// start the container once they have it.
func (s *server) waitContainer(q *request) error {
	ctx, cancel := s.whileOpen(q)
	defer cancel()
	begun := false
	exit, err := s.engine.Wait(ctx, q.name, engine.Condition(q.query("condition")), func() {
		begun = true
		q.w.Header().Set("Content-Type", "application/json")
		q.w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(q.w).Flush()
	})
	if !begun {
		return err
	}
	if ctx.Err() != nil {
		panic(http.ErrAbortHandler) // no exit status must not look like one
	}
	out := container.WaitResponse{StatusCode: int64(exit.Code)}
	if err != nil {
		out.Error = &container.WaitExitError{Message: err.Error()}
	}
	_ = json.NewEncoder(q.w).Encode(out)
	return nil
}

// size reads h and w of a resize.
func (q *request) size() (height, width uint16, err error) {
	var n [2]int
	for i, k := range []string{"h", "w"} {
		if n[i], err = q.number(k, -1); err != nil {
			return 0, 0, err
		}
		if n[i] < 0 || n[i] > 1<<16-1 {
			return 0, 0, errdef.Invalid("invalid resize: %s must be a number between 0 and 65535", k)
		}
	}
	return uint16(n[0]), uint16(n[1]), nil
}

func (s *server) resizeContainer(q *request) error {
	h, w, err := q.size()
	if err != nil {
		return err
	}
	return s.engine.Resize(q.Context(), q.name, h, w)
}

// exitEvent is POST /hull/v1/events/exit/{name}: a monitor tells of an exit nobody waited for.
func (s *server) exitEvent(q *request) error {
	if err := s.engine.OnExit(context.WithoutCancel(q.Context()), q.name); err != nil {
		return err
	}
	return q.empty(http.StatusNoContent)
}

// filters reads the filters parameter: {"key":["a","b"]} or, in the newer spelling, {"key":{"a":true}}.
func (q *request) filters() (map[string][]string, error) { return q.filtersIn("filters") }

// filtersIn reads filters from another parameter.
func (q *request) filtersIn(key string) (map[string][]string, error) {
	v := q.query(key)
	if v == "" {
		return nil, nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(v), &raw); err != nil {
		return nil, errdef.Invalid("invalid filter: %w", err)
	}
	out := make(map[string][]string, len(raw))
	for k, r := range raw {
		var list []string
		if json.Unmarshal(r, &list) == nil {
			out[k] = list
			continue
		}
		var set map[string]bool
		if err := json.Unmarshal(r, &set); err != nil {
			return nil, errdef.Invalid("invalid filter '%s': %w", k, err)
		}
		for word, on := range set {
			if on {
				out[k] = append(out[k], word)
			}
		}
	}
	return out, nil
}
