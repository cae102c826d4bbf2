package api

import (
	"strconv"
	"strings"

	"hull/engine"
	"hull/errdef"
	"hull/image"
	"hull/ref"

	"github.com/moby/moby/api/types/auxprogress"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushed is what clients learn of a tag that was pushed, beside the line for people.
type pushed struct {
	Tag    string
	Digest string
	Size   int64
}

// pushImage is POST /images/{name...}/push.
func (s *server) pushImage(q *request) error {
	if err := noPeer(q.name); err != nil {
		return err
	}
	m := &messages{q: q}
	remote, err := q.remote(m, q.name)
	if err != nil {
		return err
	}
	platform, err := q.pushed()
	if err != nil {
		return err
	}
	r, err := ref.Parse(q.name)
	if err != nil {
		return err
	}
	if err := s.push(q, m, remote, r.Name(), q.name, platform); err != nil {
		return m.fail(err)
	}
	return nil
}

// pushed is the one platform that is to be pushed, "" for all that are here.
func (q *request) pushed() (string, error) {
	platforms, err := q.platforms("platform")
	if err == nil && len(platforms) > 1 {
		err = errdef.Invalid("conflicting options: a push takes one platform, or all that are here")
	}
	return strings.Join(platforms, ""), err
}

// push stores an image at a registry or a peer, which messages call to, and tells m.
func (s *server) push(q *request, m *messages, remote engine.Remote, to, name, platform string) error {
	begun := false
	begin := func() {
		if !begun {
			begun = true
			m.send(message{Status: "The push refers to repository [" + to + "]"})
		}
	}
	return s.engine.PushImage(q.Context(), name, q.query("tag"), engine.PushOptions{
		Remote: remote, Platform: platform, Compress: q.query("compress"),
		Progress: func(p image.Progress) {
			begin()
			m.progress(p)
		},
		Done: func(p image.Pushed, r ref.Ref) {
			begin()
			m.send(message{Status: r.Tag + ": digest: " + string(p.Digest) + " size: " + strconv.FormatInt(p.Size, 10)})
			m.send(message{Progress: &progress{}, Aux: pushed{r.Tag, string(p.Digest), p.Size}})
			if p.Index != "" {
				m.send(message{Aux: auxprogress.ManifestPushedInsteadOfIndex{
					ManifestPushedInsteadOfIndex: true,
					OriginalIndex:                ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.Digest(p.Index), Size: p.IndexSize},
					SelectedManifest:             ocispec.Descriptor{MediaType: p.MediaType, Digest: digest.Digest(p.Digest), Size: p.Size},
				}})
			}
		},
	})
}
