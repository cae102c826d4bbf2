package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

// Build describes a build for an engine in this process.
type Build struct {
	Attrs   map[string]string // of the frontend: BuildKit's names
	Locals  map[string]string // directories by the names of the frontend: "context", "dockerfile", and named ones
	Secrets map[string][]byte
	Agents  map[string]string // sockets of ssh agents
	Allow   []string          // entitlements
	Tags    []string
	By      string     // the command, for the logs of the tags
	Epoch   *time.Time // that everything is made at; nil is now
	Output  string     // "image", or "none"

	Auths string `json:"-"` // credentials, that of X-Registry-Config
	// Status is told what happens: BuildKit's SolveStatus as JSON. It may be nil.
	Status func(json.RawMessage) `json:"-"`
}

// Built is what a build made.
type Built struct {
	ID       string // of the build
	Image    string // id
	Manifest string // digest
	Metadata map[string][]byte
}

// BuildFailure is what there is to show of a failed build beside the error.
type BuildFailure struct {
	Source string // lines of the Dockerfile
	Status int    // that of the command that failed; 0: none did
}

// ImageBuild runs a build to its end. failed is set beside an error that has more to show.
func (c *Client) ImageBuild(ctx context.Context, b *Build) (out Built, failed *BuildFailure, err error) {
	m, err := c.hullMessages(ctx, request{method: http.MethodPost, path: "/hull/v1/build", json: b, auths: b.Auths})
	if err != nil {
		return out, nil, err
	}
	ended := false
	err = m.Each(func(msg jsonstream.Message) {
		if msg.Aux == nil {
			return
		}
		var aux struct {
			Status  json.RawMessage
			Failure *BuildFailure
			Result  *Built
		}
		if json.Unmarshal(*msg.Aux, &aux) != nil {
			return
		}
		switch {
		case aux.Result != nil:
			out, ended = *aux.Result, true
		case aux.Failure != nil:
			failed = aux.Failure
		case aux.Status != nil && b.Status != nil:
			b.Status(aux.Status)
		}
	})
	if err == nil && !ended {
		err = decodeError(io.ErrUnexpectedEOF)
	}
	return out, failed, err
}
