package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"mime"

	"hull/errdef"
	"hull/ref"
)

// content is what a manifest of whatever kind says, as far as whoever keeps and passes it on needs to know: an image, an
// index, a signature, a chart. None of it has to be anything that can be unpacked.
type content struct {
	mediaType    string // "" when it does not say
	artifactType string // as a list of referrers shows it
	annotations  json.RawMessage
	size         int64
	subject      ref.Digest
	blobs        []descriptor
	manifests    []descriptor
}

// parseContent reads a manifest of any kind. What could be taken for two things is refused, and what is sent as something
// else than it says it is (CVE-2021-41190).
func parseContent(data []byte, declared string) (*content, error) {
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		ArtifactType  string          `json:"artifactType"`
		Config        *descriptor     `json:"config"`
		Layers        []descriptor    `json:"layers"`
		Blobs         []descriptor    `json:"blobs"` // of artifact manifests, which came before images had a subject
		Manifests     []descriptor    `json:"manifests"`
		Subject       *descriptor     `json:"subject"`
		FSLayers      json.RawMessage `json:"fsLayers"`
		Annotations   json.RawMessage `json:"annotations"`
	}
	if err := unmarshal(data, &doc); err != nil {
		return nil, errdef.Invalid("manifest: %w", err)
	}
	if bytes.Equal(doc.Annotations, []byte("null")) {
		doc.Annotations = nil
	}
	if base, _, err := mime.ParseMediaType(declared); err == nil {
		declared = base
	}
	isManifest := doc.Config != nil || doc.Layers != nil
	isIndex := doc.Manifests != nil
	c := &content{mediaType: doc.MediaType, annotations: doc.Annotations, size: int64(len(data)), artifactType: doc.ArtifactType}
	switch {
	case isManifest && isIndex || doc.FSLayers != nil:
		return nil, errdef.Invalid("manifest is of more than one kind, or of an old one: refused")
	case declared != "" && doc.MediaType != "" && declared != doc.MediaType:
		return nil, errdef.Invalid("manifest is sent as %q and says that it is %q: refused", declared, doc.MediaType)
	}
	if c.mediaType == "" {
		c.mediaType = declared
	}
	switch c.mediaType {
	case typeManifest, typeDockerManifest:
		if isIndex || doc.Config == nil {
			return nil, errdef.Invalid("manifest contradicts its media type: refused")
		}
		isManifest = true
	case typeIndex, typeDockerList:
		if isManifest || !isIndex {
			return nil, errdef.Invalid("index contradicts its media type: refused")
		}
	case "":
		if isManifest {
			c.mediaType = typeManifest
		} else if isIndex {
			c.mediaType = typeIndex
		} else {
			return nil, errdef.Invalid("neither a manifest nor an index of manifests")
		}
	}
	if (isManifest || isIndex) && doc.SchemaVersion != 2 {
		return nil, errdef.Invalid("manifest has the schema version %d, want 2", doc.SchemaVersion)
	}
	if doc.Config != nil {
		c.blobs = append(c.blobs, *doc.Config)
		if c.artifactType == "" {
			c.artifactType = doc.Config.MediaType
		}
	}
	c.blobs = append(append(c.blobs, doc.Layers...), doc.Blobs...)
	c.manifests = doc.Manifests
	if doc.Subject != nil {
		if err := doc.Subject.check(); err != nil {
			return nil, errdef.Invalid("manifest: subject: %w", err)
		}
		c.subject = doc.Subject.Digest
	}
	for i := range c.blobs {
		if err := c.blobs[i].check(); err != nil {
			return nil, errdef.Invalid("manifest: %w", err)
		}
	}
	for i := range c.manifests {
		if err := c.manifests[i].check(); err != nil {
			return nil, errdef.Invalid("index: entry %d: %w", i, err)
		}
	}
	return c, nil
}

// content marks a manifest of any kind with all that it leads to and is here. What cannot be understood leads nowhere.
func (m *marks) content(d ref.Digest) error {
	if m.kept[d] {
		return nil
	}
	data, err := m.s.readBlob(d, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil && !errors.Is(err, errdef.ErrCorrupt) {
		return err
	}
	if m.kept == nil {
		m.kept = map[ref.Digest]bool{}
	}
	m.kept[d], m.blobs[d] = true, true
	c, err := parseContent(bytes.TrimSpace(data), "")
	if err != nil {
		return nil
	}
	for _, b := range c.blobs {
		m.isContent(b.Digest)
	}
	for _, e := range c.manifests {
		if err := m.content(e.Digest); err != nil {
			return err
		}
	}
	return nil
}

// isContent marks a blob.
func (m *marks) isContent(d ref.Digest) {
	if m.contents == nil {
		m.contents = map[ref.Digest]bool{}
	}
	m.blobs[d], m.contents[d] = true, true
}
