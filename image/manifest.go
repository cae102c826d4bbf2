package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"hull/errdef"
	"hull/ref"
)

// Media types of what a store holds.
const (
	typeManifest       = "application/vnd.oci.image.manifest.v1+json"
	typeIndex          = "application/vnd.oci.image.index.v1+json"
	typeConfig         = "application/vnd.oci.image.config.v1+json"
	typeLayer          = "application/vnd.oci.image.layer.v1.tar"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// Bounds of what strangers make us hold in memory or mount.
const (
	maxManifest = 4 << 20 // what registries accept
	maxConfig   = 8 << 20
	maxLayers   = 500 // of one overlayfs mount
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      ref.Digest        `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

// check makes sure that the fields everything relies on are there: JSON may leave them out or say null.
func (d *descriptor) check() error {
	if d.Digest == "" {
		return errdef.Invalid("a descriptor has no digest")
	}
	if d.Size < 0 {
		return errdef.Invalid("descriptor of %s has the size %d", d.Digest, d.Size)
	}
	return nil
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []descriptor `json:"manifests"`
}

// parseTarget reads what a reference may name: exactly one of the results is not nil. Bytes that could be taken
// for both are refused, as are bytes that contradict the declared media type ("" is none) (CVE-2021-41190).
func parseTarget(data []byte, declared string) (*manifest, *index, error) {
	var probe struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := unmarshal(data, &probe); err != nil {
		return nil, nil, errdef.Invalid("manifest: %w", err)
	}
	isManifest := probe.Config != nil || probe.Layers != nil
	isIndex := probe.Manifests != nil
	switch {
	case isManifest && isIndex || probe.FSLayers != nil:
		return nil, nil, errdef.Invalid("manifest is of more than one kind: refused")
	case probe.SchemaVersion != 2:
		return nil, nil, errdef.Invalid("manifest has the schema version %d, want 2", probe.SchemaVersion)
	}
	for _, t := range []string{probe.MediaType, declared} {
		switch t {
		case "":
		case typeManifest, typeDockerManifest:
			isManifest = true
		case typeIndex, typeDockerList:
			isIndex = true
		default:
			return nil, nil, errdef.Invalid("%q is not the media type of an image", t)
		}
	}
	switch {
	case isManifest && isIndex:
		return nil, nil, errdef.Invalid("manifest contradicts its media type: refused")
	case isManifest:
		m, err := parseManifest(data)
		return m, nil, err
	case isIndex:
		i, err := parseIndex(data)
		return nil, i, err
	}
	return nil, nil, errdef.Invalid("neither a manifest nor an index of manifests")
}

func parseManifest(data []byte) (*manifest, error) {
	var m manifest
	if err := unmarshal(data, &m); err != nil {
		return nil, errdef.Invalid("manifest: %w", err)
	}
	if err := m.Config.check(); err != nil {
		return nil, errdef.Invalid("manifest: configuration: %w", err)
	}
	switch m.Config.MediaType {
	case typeConfig, typeDockerConfig:
	default:
		return nil, errdef.Invalid("manifest is of an artifact with configuration type %q, not of an image", m.Config.MediaType)
	}
	if m.Config.Size > maxConfig {
		return nil, errdef.Invalid("the image configuration has %d bytes, more than %d", m.Config.Size, maxConfig)
	}
	if len(m.Layers) > maxLayers {
		return nil, errdef.Invalid("the image has %d layers; overlayfs takes %d at most", len(m.Layers), maxLayers)
	}
	for i := range m.Layers {
		if err := m.Layers[i].check(); err != nil {
			return nil, errdef.Invalid("manifest: layer %d: %w", i, err)
		}
		if t := m.Layers[i].MediaType; !isLayerType(t) {
			return nil, errdef.Unavailable("layer %d has the media type %q, which hull cannot unpack", i, t)
		}
	}
	return &m, nil
}

// isLayerType: the compression is detected from the content, whatever the suffix says.
func isLayerType(t string) bool {
	switch strings.TrimSuffix(strings.TrimSuffix(t, "+gzip"), "+zstd") {
	case typeLayer, "application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
		return true
	}
	return false
}

func parseIndex(data []byte) (*index, error) {
	var x index
	if err := unmarshal(data, &x); err != nil {
		return nil, errdef.Invalid("index: %w", err)
	}
	for i := range x.Manifests {
		if err := x.Manifests[i].check(); err != nil {
			return nil, errdef.Invalid("index: entry %d: %w", i, err)
		}
	}
	return &x, nil
}

// parseConfig reads an image configuration as far as the store relies on it; see Config.Validate for the rest.
func parseConfig(data []byte) (*Config, error) {
	var c Config
	if err := unmarshal(data, &c); err != nil {
		return nil, errdef.Invalid("image configuration: %w", err)
	}
	if c.RootFS.Type != "layers" {
		return nil, errdef.Invalid("image configuration: rootfs.type is %q, want \"layers\"", c.RootFS.Type)
	}
	for i, d := range c.RootFS.DiffIDs {
		if _, err := ref.ParseDigest(d); err != nil || !strings.HasPrefix(d, "sha256:") {
			return nil, errdef.Invalid("image configuration: diff id %d: %q is no sha256 digest", i, d)
		}
	}
	return &c, nil
}

// unmarshal refuses what follows the value, and a value that is no object.
func unmarshal(data []byte, v any) error {
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return fmt.Errorf("not a JSON object")
	}
	return json.Unmarshal(data, v)
}

// chainIDs names each layer together with all below it.
func chainIDs(diffIDs []string) []string {
	chain := make([]string, len(diffIDs))
	for i, d := range diffIDs {
		if i == 0 {
			chain[0] = d
			continue
		}
		chain[i] = sumOf([]byte(chain[i-1] + " " + d))
	}
	return chain
}

func sumOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// platform is what an image is for.
type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// parsePlatform reads os/arch[/variant] or arch; "" and "linux" are this machine's.
func parsePlatform(s string) (platform, error) {
	p := platform{OS: "linux", Architecture: runtime.GOARCH}
	if s == "" || s == p.OS {
		return p, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	p = platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	for _, part := range parts {
		if part == "" || len(parts) > 3 || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_.") != "" {
			return platform{}, errdef.Invalid("invalid platform %q: want os/architecture or os/architecture/variant", s)
		}
	}
	switch p.Architecture {
	case "x86_64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	}
	return p, nil
}

func (p platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// choose returns the entry of x that suits p best, or nil. Entries that describe other entries (attestations)
// have the platform "unknown".
func (x *index) choose(p platform) *descriptor {
	var found *descriptor
	for i := range x.Manifests {
		d := &x.Manifests[i]
		switch {
		case d.Annotations["vnd.docker.reference.type"] != "":
		case d.Platform == nil || d.Platform.OS != p.OS || d.Platform.Architecture != p.Architecture:
		case d.Platform.variant() == p.variant():
			return d
		case p.Variant == "" && found == nil:
			found = d
		}
	}
	if found == nil && len(x.Manifests) == 1 && x.Manifests[0].Platform == nil {
		return &x.Manifests[0]
	}
	return found
}

// platforms are those somebody wants images for.
type platforms struct {
	list []platform
	only bool // asked for: no other will do
}

// parsePlatforms takes this machine's for none.
func parsePlatforms(names []string) (platforms, error) {
	want := platforms{only: len(names) > 0}
	if !want.only {
		names = []string{""}
	}
	for _, n := range names {
		p, err := parsePlatform(n)
		if err != nil {
			return platforms{}, err
		}
		want.list = append(want.list, p)
	}
	return want, nil
}

// has says whether the image of c is wanted.
func (w *platforms) has(c *Config) bool {
	p := platform{c.OS, c.Architecture, c.Variant}
	return !w.only || slices.ContainsFunc(w.list, p.suits)
}

func (w *platforms) none() error {
	names := make([]string, len(w.list))
	for i, p := range w.list {
		names[i] = p.String()
	}
	return errdef.NotFound("the archive has no image for %s", strings.Join(names, ", "))
}

func platformOfConfig(c *Config) *platform { return &platform{c.OS, c.Architecture, c.Variant} }

// suits says whether an image for p is what somebody who asked for want gets.
func (p *platform) suits(want platform) bool {
	return p.OS == want.OS && p.Architecture == want.Architecture && (want.Variant == "" || p.variant() == want.variant())
}

// variant is p.Variant, or "" for the first of an architecture: the specification has it left out or written.
func (p *platform) variant() string {
	switch first := p.Architecture + "/" + strings.TrimPrefix(p.Variant, "v"); first {
	case "arm64/8", "amd64/1":
		return ""
	}
	return p.Variant
}
