package api

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestVolumes(t *testing.T) {
	c := client(t)
	const jsonType = "application/json"
	for _, step := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/v1.45/volumes", "", 200, `{"Volumes":[],"Warnings":null}`},
		{"POST", "/volumes/create", `{"Name":"data","Labels":{"a":"b"},"DriverOpts":{}}`, 201, `"Name":"data"`},
		{"POST", "/volumes/create", `{"Name":"data","Driver":"local"}`, 201, `"Labels":{"a":"b"}`},
		{"POST", "/volumes/create", "", 201, `"com.docker.volume.anonymous":""`},
		{"POST", "/volumes/create", `{"Name":"../x"}`, 400, `includes invalid characters for a local volume name`},
		{"POST", "/volumes/create", `{"Name":"x`, 400, "invalid JSON"},
		{"POST", "/volumes/create", `{"Name":"xy","Driver":"nope"}`, 404, `plugin \"nope\" not found`},
		{"GET", "/volumes/data", "", 200, `"Scope":"local"`},
		{"GET", "/volumes/..%2f..%2fetc", "", 404, ""},
		{"GET", "/volumes/nope", "", 404, "get nope: no such volume"},
		{"GET", "/hull/v1/volumes/data/removable", "", 200, `{"Items":[{"Kind":"volume","Name":"data","Size":0}],"SpaceReclaimed":0}`},
		{"GET", "/hull/v1/volumes/nope/removable", "", 404, "get nope: no such volume"},
		{"GET", "/hull/v1/containers/nope/removable", "", 404, "No such container: nope"},
		{"GET", "/hull/v1/images/no/such:1/removable", "", 404, "No such image: no/such:1"},
		{"DELETE", "/volumes/data", "", 204, ""},
		{"GET", "/hull/v1/trash", "", 200, `"Kind":"volume","Name":"data"`},
		{"POST", "/hull/v1/trash/restore?name=nope", "", 404, "nothing in the trash is called nope"},
		{"POST", "/hull/v1/trash/restore?name=data&as=more", "", 200, `[{"Kind":"volume","Name":"more"}]`},
		{"POST", "/hull/v1/trash/restore", "", 404, "there is nothing to undo: the trash is empty"},
		{"DELETE", "/volumes/more", "", 204, ""},
		{"DELETE", "/hull/v1/trash?name=nope", "", 404, "nothing in the trash is called nope"},
		{"DELETE", "/hull/v1/trash", "", 200, `"Name":"more"`},
		{"POST", "/volumes/create", `{"Name":"data"}`, 201, ""},
		{"DELETE", "/volumes/data?trash=0", "", 204, ""},
		{"GET", "/hull/v1/trash", "", 200, `[]`},
		{"POST", "/volumes/create", `{"Name":"data"}`, 201, ""},
		{"DELETE", "/volumes/nope", "", 404, "get nope: no such volume"},
		{"DELETE", "/volumes/nope?force=1", "", 204, ""},
		{"GET", `/volumes?filters={"name":["dat"]}`, "", 200, `"Name":"data"`},
		{"GET", `/volumes?filters={"nope":["dat"]}`, "", 400, "invalid filter 'nope'"},
		{"POST", "/v1.45/volumes/prune", "", 200, `"SpaceReclaimed":0`},
		{"GET", "/volumes/data", "", 200, `"Name":"data"`}, // it has a name of its own
		{"POST", "/v1.41/volumes/prune", "", 200, `"VolumesDeleted":["data"]`},
		{"DELETE", "/volumes/data", "", 404, ""},
	} {
		path := strings.NewReplacer(`"`, "%22", "{", "%7b", "}", "%7d", "[", "%5b", "]", "%5d").Replace(step.path)
		res, body := do(t, c, step.method, path, step.body, "Content-Type", jsonType)
		if res.StatusCode != step.code || !strings.Contains(body, step.says) {
			t.Errorf("%s %s %s: want %d and %s, got %s and %s", step.method, step.path, step.body, step.code, step.says, res.Status, body)
		}
		if body != "" && !json.Valid([]byte(body)) {
			t.Errorf("%s %s: not JSON: %s", step.method, step.path, body)
		}
	}
}
