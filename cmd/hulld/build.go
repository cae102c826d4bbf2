package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	solvererrs "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"

	"hull/api"
	"hull/build"
	"hull/build/dockerfile"
	"hull/engine"
	"hull/errdef"
)

// builder answers the Engine API's builds.
type builder struct{ b *build.Builder }

func newBuilder(e *engine.Engine) *builder { return &builder{build.New(e)} }

// Build is api.Builder's.
func (b *builder) Build(ctx context.Context, o *api.Build, status func(json.RawMessage)) (*api.BuildResult, error) {
	res, err := b.b.Solve(ctx, &build.Request{
		Frontend: dockerfile.Build, Attrs: o.Attrs, Locals: o.Locals, Agents: o.Agents, Allow: o.Allow,
		Tags: o.Tags, By: o.By, Epoch: o.Epoch, Remote: o.Remote,
		Secret: func(_ context.Context, id string) ([]byte, error) {
			if v, ok := o.Secrets[id]; ok {
				return v, nil
			}
			return nil, errdef.NotFound("no secret %s", id)
		},
		Status: func(s *client.SolveStatus) {
			if data, err := json.Marshal(s); err == nil {
				status(data)
			}
		},
	})
	if err != nil {
		return nil, failure(err)
	}
	if err := describe(o.Attrs["requestid"], res.Metadata); err != nil {
		return nil, err
	}
	return &api.BuildResult{ID: res.ID, Image: res.Image, Manifest: res.Manifest, Metadata: res.Metadata}, nil
}

// describe writes for people what the frontend found out instead of building, as result.txt.
func describe(request string, metadata map[string][]byte) error {
	var text bytes.Buffer
	var err error
	switch data := metadata["result.json"]; request {
	case lint.RequestLint:
		err = lint.PrintLintViolations(data, &text, nil)
	case outline.RequestSubrequestsOutline:
		err = outline.PrintOutline(data, &text)
	case targets.RequestTargets:
		err = targets.PrintTargets(data, &text)
	}
	if text.Len() > 0 {
		metadata["result.txt"] = text.Bytes()
	}
	return err
}

// failure adds to an error what there is to show of it.
func failure(err error) error {
	f := &api.BuildError{Err: err}
	var text bytes.Buffer
	for _, s := range solvererrs.Sources(err) {
		_ = s.Print(&text)
	}
	f.Source = text.String()
	var end *build.ExitError
	if errors.As(err, &end) {
		f.Status = end.Code
	}
	return f
}

// buildProgress shows progress as buildx does, with the same code.
func buildProgress(mode string, out *os.File) (show func(json.RawMessage), done func(), err error) {
	display, err := progressui.NewDisplay(out, progressui.DisplayMode(mode))
	if err != nil {
		return nil, nil, err
	}
	ch := make(chan *client.SolveStatus)
	var shown sync.WaitGroup
	shown.Go(func() {
		_, _ = display.UpdateFrom(context.Background(), ch) // ends with ch
		for range ch {                                      // or it could not show
		}
	})
	show = func(data json.RawMessage) {
		s := new(client.SolveStatus)
		if json.Unmarshal(data, s) == nil {
			ch <- s
		}
	}
	return show, func() {
		close(ch)
		shown.Wait()
	}, nil
}
