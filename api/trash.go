package api

import (
	"net/http"
	"time"

	"hull/engine"
)

// SavedHeader is how long what a request removed can be restored, as a duration; without it that is gone for good.
const SavedHeader = "Hull-Undo"

// BatchHeader is a word that is the same in all requests of one command: what they remove is restored together.
const BatchHeader = "Hull-Batch"

// batch is what the client says; more than a word of it is nobody's.
func (q *request) batch() string {
	b := q.Header.Get(BatchHeader)
	return b[:min(len(b), 64)]
}

func (q *request) saved(d time.Duration) {
	if d > 0 {
		q.w.Header().Set(SavedHeader, d.String())
	}
}

// removalPlan is what the calls answer that say what a removal or prune would take: they are calls of their own, and no
// parameter of the removal, as an engine that does not know the parameter would remove.
type removalPlan struct {
	Items          []plannedItem
	SpaceReclaimed int64
}

// plannedItem is one thing that would go. Kind is container, volume, reference, image, layer, blobs or trash.
type plannedItem struct {
	Kind     string
	ID, Name string `json:",omitempty"`
	Size     int64
}

func planOf(list []engine.Planned) removalPlan {
	out := removalPlan{Items: []plannedItem{}, SpaceReclaimed: engine.Total(list)}
	for _, p := range list {
		out.Items = append(out.Items, plannedItem{p.Kind, p.ID, p.Name, p.Size})
	}
	return out
}

// trashed is one thing in the trash.
type trashed struct {
	Number  int
	Kind    string `json:",omitempty"`
	ID      string `json:",omitempty"`
	Name    string `json:",omitempty"`
	Size    int64  // bytes, -1 when that is not known
	Removed time.Time
	Expires time.Time
	By      string `json:",omitempty"`
	Damaged string `json:",omitempty"` // why it can only be removed for good
}

func trashedItems(list []engine.Trashed) []trashed {
	out := make([]trashed, 0, len(list))
	for _, t := range list {
		out = append(out, trashed{t.Number, t.Kind, t.ID, t.Name, t.Size, t.Removed.UTC(), t.Expires.UTC(), t.By, t.Damaged})
	}
	return out
}

// listTrash is GET /hull/v1/trash: what the parameters name are called, or everything.
func (s *server) listTrash(q *request) error {
	list, err := s.engine.Trash(q.Context(), q.form["name"]...)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, trashedItems(list))
}

// emptyTrash is DELETE /hull/v1/trash: what the parameters name are called, or everything.
func (s *server) emptyTrash(q *request) error {
	gone, err := s.engine.EmptyTrash(q.Context(), q.form["name"]...)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, trashedItems(gone))
}

// restored is one thing that came back from the trash.
type restored struct {
	Kind     string
	ID, Name string   `json:",omitempty"`
	Notes    []string `json:",omitempty"` // what is not as it was
	Failed   string   `json:",omitempty"` // why it did not come back
}

// restoreTrash is POST /hull/v1/trash/restore: of what is called name, under the name as if that is given; without both
// of all that the last command removed.
func (s *server) restoreTrash(q *request) error {
	var list []engine.Restored
	name := q.query("name")
	if name == "" {
		var err error
		if list, err = s.engine.Undo(q.Context(), engine.RestoreOptions{Name: q.query("as")}); err != nil {
			return err
		}
	} else {
		r, err := s.engine.Restore(q.Context(), name, engine.RestoreOptions{Name: q.query("as")})
		if err != nil {
			return err
		}
		list = append(list, *r)
	}
	out := make([]restored, 0, len(list))
	for _, r := range list {
		out = append(out, restored{r.Kind, r.ID, r.Name, r.Notes, r.Failed})
	}
	return q.answer(http.StatusOK, out)
}
