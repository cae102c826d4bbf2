package engine

import (
	"context"
	"encoding/json"
	"strings"

	"hull/errdef"
	"hull/ref"
	"hull/registry"
)

// RegistryRoute is where what name names is asked for. Nobody is asked anything.
func (e *Engine) RegistryRoute(name string, o Remote) (*registry.Report, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	opt, err := e.registryOptions(o)
	if err != nil {
		return nil, err
	}
	return registry.Describe(r, opt)
}

// RegistryTest asks every host on the way to what name names, and tells how far each gets.
func (e *Engine) RegistryTest(ctx context.Context, name string, o Remote) (*registry.Report, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	opt, err := e.registryOptions(o)
	if err != nil {
		return nil, err
	}
	return registry.Test(ctx, r, opt)
}

// Origins are the repositories that blobs of this store came from or were pushed to: whoever has the store repaired needs
// credentials for those; with dropped only of the blobs that are not here any more, for whoever sends images on.
func (e *Engine) Origins(dropped bool) []string { return e.images().Repositories(dropped) }

// Search finds repositories. A term with a registry before it, as in references, searches that one.
func (e *Engine) Search(ctx context.Context, term string, limit int, o Remote) ([]registry.Found, error) {
	server, rest := ref.DefaultRegistry, term
	if first, after, ok := strings.Cut(term, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		server, rest = first, after
	}
	if strings.Contains(term, "://") {
		return nil, errdef.Invalid("invalid repository name: repository name (%s) should not have a scheme", term)
	}
	opt, err := e.registryOptions(o)
	if err != nil {
		return nil, err
	}
	return registry.Search(ctx, server, rest, limit, opt)
}

// Distribution is what a registry has under a name: what the name stands for there, and for which platforms that is.
type Distribution struct {
	Digest    ref.Digest
	MediaType string
	Manifest  []byte // as the registry has it
	Platforms []Platform
}

// Platform is what an image is made for.
type Platform struct {
	OS           string   `json:"os"`
	Architecture string   `json:"architecture"`
	Variant      string   `json:"variant"`
	Version      string   `json:"os.version"`
	Features     []string `json:"os.features"`
}

// maxConfig bounds the configuration of an image that is only asked about.
const maxConfig = 8 << 20

// Distribution asks the registry of name, without bringing the image.
func (e *Engine) Distribution(ctx context.Context, name string, o Remote) (*Distribution, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	r = r.Tagged()
	repo, err := e.repository(ctx, r, o, false)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	reference := r.Tag
	if r.Digest != "" {
		reference = string(r.Digest)
	}
	d := new(Distribution)
	if d.Manifest, d.MediaType, err = repo.Manifest(ctx, reference); err != nil {
		return nil, err
	}
	d.Digest = registry.Digest(d.Manifest)
	d.Platforms, err = platforms(ctx, repo, d.Manifest)
	return d, err
}

// platforms are those an index lists, or the one of an image.
func platforms(ctx context.Context, repo *registry.Repository, manifest []byte) ([]Platform, error) {
	var doc struct {
		Manifests []struct{ Platform *Platform }
		Config    struct {
			Digest ref.Digest
			Size   int64
		}
	}
	if err := json.Unmarshal(manifest, &doc); err != nil {
		return nil, errdef.Invalid("the manifest is not as it should be: %w", err)
	}
	var list []Platform
	for _, m := range doc.Manifests {
		// Attestations are listed as images for no platform.
		if p := m.Platform; p != nil && p.OS != "unknown" {
			list = append(list, *p)
		}
	}
	if doc.Manifests != nil || doc.Config.Digest == "" {
		return list, nil
	}
	data, err := repo.Small(ctx, doc.Config.Digest, min(doc.Config.Size, maxConfig))
	if err != nil {
		return nil, err
	}
	var p Platform
	if json.Unmarshal(data, &p) != nil || p.OS == "" {
		return nil, nil // an artifact that is no image
	}
	return []Platform{p}, nil
}
