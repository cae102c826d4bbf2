package api

import (
	"context"
	"io"
	"net/http"

	"hull/engine"
	"hull/errdef"

	"github.com/moby/moby/api/types/container"
)

// createExec is POST /containers/{name}/exec.
func (s *server) createExec(q *request) error {
	var body container.ExecCreateRequest
	if err := q.decode(&body); err != nil {
		return err
	}
	if _, err := parseKeys(body.DetachKeys); err != nil {
		return err
	}
	id, err := s.engine.ExecCreate(q.Context(), q.name, &engine.ExecConfig{
		Args: body.Cmd, Env: body.Env, User: body.User, WorkingDir: body.WorkingDir, Tty: body.Tty, Privileged: body.Privileged,
		Stdin: body.AttachStdin, Stdout: body.AttachStdout, Stderr: body.AttachStderr, ConsoleSize: console(body.ConsoleSize),
		DetachKeys: body.DetachKeys,
	})
	if err != nil {
		return err
	}
	return q.answer(http.StatusCreated, container.ExecCreateResponse{ID: id})
}

// console reads a terminal's height and width, clamped to what fits one.
func console(size *[2]uint) engine.Size {
	if size == nil {
		return engine.Size{}
	}
	return engine.Size{Height: uint16(min(size[0], 1<<16-1)), Width: uint16(min(size[1], 1<<16-1))}
}

// startExec is POST /exec/{name}/start.
func (s *server) startExec(q *request) error {
	var body container.ExecStartRequest
	if err := q.decodeOptional(&body); err != nil {
		return err
	}
	o := engine.ExecStart{Detach: body.Detach, ConsoleSize: console(body.ConsoleSize)}
	if body.Detach {
		if _, _, _, err := s.engine.ExecStart(q.Context(), q.name, o); err != nil {
			return err
		}
		return q.empty(http.StatusOK)
	}
	err := q.connect(func(ctx context.Context) (*link, error) {
		stream, tty, keys, err := s.engine.ExecStart(ctx, q.name, o)
		if err != nil {
			return nil, err
		}
		l := &link{Stream: stream, tty: tty, raw: tty}
		if tty && !body.Tty { // as in Docker, who starts it says how the output is to come
			l.Stream, l.raw = &framed{Stream: stream}, false
		}
		l.keys, _ = parseKeys(keys) // were good at the create
		return l, nil
	})
	if k := errdef.Kind(err); (k == errdef.ErrNoCommand || k == errdef.ErrCannotRun) && q.Header.Get("User-Agent") != hullAgent {
		return q.tellInStream(err, body.Tty)
	}
	return err
}

// hullAgent is how our own client calls itself.
const hullAgent = "hull"

// tellInStream answers as Docker's daemon does, which opens the stream before it tries the command: its clients read
// there why there is no command, and ask for the exit code afterwards.
func (q *request) tellInStream(why error, tty bool) error {
	conn, _, err := http.NewResponseController(q.w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	text := []byte(why.Error() + "\r\n")
	if !tty {
		text = append(frameHead(1, len(text)), text...)
	}
	_, _ = io.WriteString(conn, q.greeting(tty))
	q.letRead(conn)
	_, _ = conn.Write(text)
	return errAnswered
}

// inspectExec is GET /exec/{name}/json.
func (s *server) inspectExec(q *request) error {
	x, err := s.engine.ExecInspect(q.Context(), q.name)
	if err != nil {
		return err
	}
	out := container.ExecInspectResponse{
		ID: x.ID, ContainerID: x.Container, Running: x.Running, Pid: x.Pid,
		OpenStdin: x.Stdin, OpenStdout: x.Stdout, OpenStderr: x.Stderr,
		ProcessConfig: &container.ExecProcessConfig{Tty: x.Tty, User: x.User, Privileged: &x.Privileged},
	}
	if len(x.Args) > 0 {
		out.ProcessConfig.Entrypoint, out.ProcessConfig.Arguments = x.Args[0], x.Args[1:]
	}
	if x.Started && !x.Running {
		out.ExitCode = &x.ExitCode
	}
	return q.answer(http.StatusOK, out)
}

func (s *server) resizeExec(q *request) error {
	h, w, err := q.size()
	if err != nil {
		return err
	}
	return s.engine.ExecResize(q.Context(), q.name, h, w)
}
