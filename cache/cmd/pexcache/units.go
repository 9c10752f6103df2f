package main

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// bytesValue is a number of bytes as people write it. It is a flag's value and a key's.
type bytesValue int64

var sizeForm = regexp.MustCompile(`^([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(B|KiB|MiB|GiB|TiB)?$`)

// Set implements pflag.Value.
func (b *bytesValue) Set(s string) error {
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		return fmt.Errorf("%q is not a size such as 500MiB or 20GiB", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return err
	}
	scale := map[string]float64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[m[2]]
	if n*scale >= 1<<62 {
		return fmt.Errorf("%q is more than any disk holds", s)
	}
	*b = bytesValue(n * scale)
	return nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *bytesValue) UnmarshalText(text []byte) error { return b.Set(string(text)) }

// String implements pflag.Value.
func (b *bytesValue) String() string {
	n := int64(*b)
	for i, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if scale := int64(1) << (40 - 10*i); n != 0 && n%scale == 0 {
			return strconv.FormatInt(n/scale, 10) + unit
		}
	}
	return strconv.FormatInt(n, 10)
}

// Type implements pflag.Value.
func (b *bytesValue) Type() string { return "size" }

// durationValue is a span of time as people write it.
type durationValue time.Duration

var days = regexp.MustCompile(`^([0-9]{1,5})d$`)

// Set implements pflag.Value.
func (d *durationValue) Set(s string) error {
	if m := days.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		*d = durationValue(time.Duration(n) * 24 * time.Hour)
		return err
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a span of time such as 90s, 3h or 14d", s)
	}
	*d = durationValue(v)
	return nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *durationValue) UnmarshalText(text []byte) error { return d.Set(string(text)) }

// String implements pflag.Value.
func (d *durationValue) String() string { return time.Duration(*d).String() }

// Type implements pflag.Value.
func (d *durationValue) Type() string { return "duration" }
