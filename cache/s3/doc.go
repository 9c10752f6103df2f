// Package s3 keeps a cache in one S3 bucket that any number of nodes share, and shares nothing else.
//
// The bucket holds an append-only log. See doc comments of the formats for bytes, and below for why it is safe.
package s3
