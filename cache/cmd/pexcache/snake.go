package main

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"time"
	"unicode"
)

// snake returns what marshals as v does, with the names of fields that have no tag in one style, dry_run, and spans of time
// in seconds. Keys of maps are data and stay as they are.
func snake(v reflect.Value) any {
	if !v.IsValid() {
		return nil
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.Seconds()
	case json.Marshaler, encoding.TextMarshaler:
		return x
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return snake(v.Elem())
		}
	case reflect.Struct:
		return snakeFields(v)
	}
	return v.Interface()
}

func snakeFields(v reflect.Value) any {
	all := map[string]any{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("json") != "" {
			return v.Interface() // it has said itself how it is written
		}
		if f.IsExported() {
			all[snakeName(f.Name)] = snake(v.Field(i))
		}
	}
	return all
}

func snakeName(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
