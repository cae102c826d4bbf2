package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

const tag = "box:latest"

type object = map[string]any

// archive is the image as an OCI layout in a tar, with docker's manifest.json beside it, compressed. The layer
// inside is not compressed a second time: unpacking it costs one pass.
func archive(bb *busybox, arch string) ([]byte, error) {
	rootfs, err := layer(tree(bb))
	if err != nil {
		return nil, err
	}
	var a blobs
	layerDesc := a.add("application/vnd.oci.image.layer.v1.tar", rootfs)
	configDesc := a.addJSON("application/vnd.oci.image.config.v1+json", config(bb, arch, layerDesc["digest"].(string)))
	manifest := a.addJSON("application/vnd.oci.image.manifest.v1+json", object{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": configDesc, "layers": []any{layerDesc},
	})
	manifest["platform"] = object{"architecture": arch, "os": "linux"}
	manifest["annotations"] = object{"io.containerd.image.name": "docker.io/library/" + tag, "org.opencontainers.image.ref.name": "latest"}
	files := []entry{
		{"oci-layout", encode(object{"imageLayoutVersion": "1.0.0"})},
		{"index.json", encode(object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{manifest}})},
		{"manifest.json", encode([]any{object{"Config": blobPath(configDesc), "RepoTags": []string{tag}, "Layers": []string{blobPath(layerDesc)}}})},
	}
	return pack(append(files, a...))
}

func config(bb *busybox, arch, diffID string) object {
	created := epoch().Format("2006-01-02T15:04:05Z")
	return object{
		"architecture": arch, "os": "linux", "created": created,
		"config": object{
			"Env": []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "ENV=/etc/shrc"},
			"Cmd": []string{"sh"},
			"Labels": object{
				"org.opencontainers.image.title":       "box",
				"org.opencontainers.image.description": "Hull's built-in image: " + bb.version,
				"org.opencontainers.image.licenses":    "GPL-2.0-only",
				"org.opencontainers.image.source":      "https://sources.debian.org/src/busybox/",
			},
		},
		"rootfs":  object{"type": "layers", "diff_ids": []string{diffID}},
		"history": []any{object{"created": created, "created_by": "hull: box", "comment": bb.version}},
	}
}

// An entry is one file of the archive.
type entry struct {
	name string
	data []byte
}

// blobs are the content-addressed files of the layout.
type blobs []entry

// add stores data and returns its descriptor.
func (b *blobs) add(mediaType string, data []byte) object {
	sum := sha256.Sum256(data)
	desc := object{"mediaType": mediaType, "digest": "sha256:" + hex.EncodeToString(sum[:]), "size": len(data)}
	*b = append(*b, entry{blobPath(desc), data})
	return desc
}

func (b *blobs) addJSON(mediaType string, v any) object { return b.add(mediaType, encode(v)) }

func blobPath(desc object) string {
	return "blobs/sha256/" + desc["digest"].(string)[len("sha256:"):]
}

// encode is deterministic: encoding/json sorts the keys of maps.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps, slices and strings always encode
	}
	return data
}

func pack(files []entry) ([]byte, error) {
	var buf bytes.Buffer
	// One goroutine: the frame's bytes must not depend on the number of processors.
	z, err := zstd.NewWriter(&buf, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), ModTime: epoch(), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("archive: %s: %w", f.name, err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("archive: %s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
