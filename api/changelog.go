package api

import (
	"net/http"

	"hull/image"
	"hull/image/packages"
)

// changelog is the answer of GET /hull/v1/images/{name...}/changelog?to=IMAGE.
type changelog struct {
	From, To imageSize
	Packages []packageChange
	Config   []settingChange
	Layers   []layerStep
	Files    diffEnd
	Notes    []string
}

type packageChange struct {
	Kind string // deb, apk, rpm, go, python or npm
	Name string
	In   string `json:",omitempty"` // of a Go module: the program it is in
	How  string // added, removed, up, down or changed
	Old  string
	New  string
}

type layerStep struct {
	DiffID                  string
	Removed                 bool
	Size                    int64
	Step                    string
	Added, Changed, Deleted int
}

func (s *server) imageChangelog(q *request) error {
	c, err := s.engine.CompareImages(q.Context(), q.name, q.query("to"))
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Changelog(q.Context())
	if err != nil {
		return err
	}
	out := changelog{
		From: imageSize{c.Old.ID, c.Old.Size}, To: imageSize{c.New.ID, c.New.Size},
		Packages: make([]packageChange, 0, len(l.Packages)), Config: wireSettings(l.Config),
		Layers: make([]layerStep, 0, len(l.Layers)), Files: wireSummary(&l.Files), Notes: l.Notes,
	}
	for _, p := range l.Packages {
		out.Packages = append(out.Packages, wirePackage(&p))
	}
	for _, s := range l.Layers {
		out.Layers = append(out.Layers, layerStep{s.DiffID, s.Removed, s.Size, s.Step, s.Added, s.Changed, s.Deleted})
	}
	return q.answer(http.StatusOK, out)
}

func wirePackage(p *packages.Change) packageChange {
	out := packageChange{Kind: p.Kind, Name: p.Name, In: p.In, How: p.How, Old: p.Old}
	if p.How != "removed" {
		out.New = p.Version
	}
	return out
}

func wireSummary(s *image.FileSummary) diffEnd {
	return diffEnd{s.Added, s.Changed, s.Deleted, s.Bytes, s.Unreadable, s.Findings}
}
