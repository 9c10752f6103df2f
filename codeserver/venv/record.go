package venv

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Bounds of the files in .dist-info that are read into memory.
const (
	maxRecord      = 128 << 20
	maxEntryPoints = 4 << 20
	maxWheelFile   = 1 << 20
)

// recorded is what RECORD says of a file: perhaps its hash, perhaps its size.
type recorded struct {
	algorithm string // "" if no hash is given
	sum       []byte
	size      int64 // -1 if it is not given
}

// line is how a hash stands in RECORD.
func line(algorithm string, sum []byte) string {
	return algorithm + "=" + base64.RawURLEncoding.EncodeToString(sum)
}

func (r recorded) hasher() hash.Hash {
	switch r.algorithm {
	case "sha384":
		return sha512.New384()
	case "sha512":
		return sha512.New()
	}
	return sha256.New()
}

// metadata is what the unpacker needs of a wheel's .dist-info.
type metadata struct {
	distInfo string
	record   map[string]recorded
	scripts  []script
}

// unrecorded reports whether RECORD need not list the file of .dist-info, because it could not have its own hash.
func (m metadata) unrecorded(name string) bool {
	file, ok := strings.CutPrefix(name, m.distInfo+"/")
	return ok && (file == "RECORD" || file == "RECORD.jws" || file == "RECORD.p7s")
}

// metadata reads the wheel's .dist-info, of which there must be exactly one, that of the file name.
func (n wheelName) metadata(ms []member) (metadata, error) {
	var md metadata
	files := map[string]member{}
	for _, m := range ms {
		dir, file, ok := strings.Cut(m.Name, "/")
		if !ok || !strings.HasSuffix(dir, ".dist-info") {
			continue
		}
		if md.distInfo != "" && md.distInfo != dir {
			return md, n.refuse(m.Name, "a second .dist-info beside %s", md.distInfo)
		}
		md.distInfo = dir
		files[file] = m
	}
	if md.distInfo == "" {
		return md, n.refuse("", "no .dist-info")
	}
	if !n.matches(md.distInfo) {
		return md, n.refuse(md.distInfo, "not the name and version of the file name")
	}
	for _, need := range []string{"WHEEL", "METADATA", "RECORD"} {
		if _, ok := files[need]; !ok {
			return md, n.refuse(md.distInfo+"/"+need, "missing")
		}
	}
	if err := n.checkWheelVersion(files["WHEEL"]); err != nil {
		return md, err
	}
	var err error
	if md.record, err = n.readRecord(files["RECORD"]); err != nil {
		return md, err
	}
	for _, m := range ms {
		if _, ok := md.record[m.Name]; !ok && !md.unrecorded(m.Name) {
			return md, n.refuse(m.Name, "RECORD does not list it")
		}
	}
	if m, ok := files["entry_points.txt"]; ok {
		md.scripts, err = n.readEntryPoints(m)
	}
	return md, err
}

// small returns the content of a member that must not be larger than limit.
func (n wheelName) small(m member, limit int64) ([]byte, error) {
	rc, err := m.Open()
	if err != nil {
		return nil, n.refuse(m.Name, "%w", err)
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errors.New("too large")
	}
	if err != nil {
		return nil, n.refuse(m.Name, "%w", err)
	}
	return b, nil
}

func (n wheelName) checkWheelVersion(m member) error {
	b, err := n.small(m, maxWheelFile)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if !strings.EqualFold(strings.TrimSpace(key), "Wheel-Version") {
			continue
		}
		value = strings.TrimSpace(value)
		if major, _, _ := strings.Cut(value, "."); major != "1" {
			return n.refuse(m.Name, "Wheel-Version %q, only 1.x is known", value)
		}
		return nil
	}
	return n.refuse(m.Name, "no Wheel-Version")
}

// readRecord parses RECORD: path, hash and size of each file.
func (n wheelName) readRecord(m member) (map[string]recorded, error) {
	b, err := n.small(m, maxRecord)
	if err != nil {
		return nil, err
	}
	record := map[string]recorded{}
	r := csv.NewReader(bytes.NewReader(b))
	r.FieldsPerRecord = 3
	r.ReuseRecord = true
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return record, nil
		}
		if err != nil {
			return nil, n.refuse(m.Name, "%w", err)
		}
		rec, err := parseRecorded(row[1], row[2])
		if err != nil {
			return nil, n.refuse(m.Name, "%s: %w", row[0], err)
		}
		was, ok := record[row[0]]
		if ok && (was.algorithm != rec.algorithm || was.size != rec.size || !slices.Equal(was.sum, rec.sum)) {
			return nil, n.refuse(m.Name, "lists %s twice", row[0])
		}
		record[strings.Clone(row[0])] = rec
	}
}

func parseRecorded(sum, size string) (recorded, error) {
	rec := recorded{size: -1}
	var err error
	if size != "" {
		if rec.size, err = strconv.ParseInt(size, 10, 64); err != nil || rec.size < 0 {
			return rec, errors.New("not a size: " + size)
		}
	}
	if sum == "" {
		return rec, nil
	}
	algorithm, value, _ := strings.Cut(sum, "=")
	rec.algorithm = strings.ToLower(algorithm)
	// PEP 427 forbids weaker ones.
	if !slices.Contains([]string{"sha256", "sha384", "sha512"}, rec.algorithm) {
		return rec, errors.New("a hash that is not accepted: " + algorithm)
	}
	rec.sum, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(value, "="))
	if err != nil || len(rec.sum) != rec.hasher().Size() {
		return rec, errors.New("not a hash: " + sum)
	}
	return rec, nil
}
