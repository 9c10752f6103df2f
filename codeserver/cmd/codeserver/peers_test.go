package main

import (
	"io"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOutside connects as this user, in each way in which the same address can be reached: who is a version is not heard,
// nor who has gone before anybody looked.
func TestOutside(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"} {
		for _, version := range []bool{false, true} {
			inner, err := net.Listen("tcp", address)
			if err != nil && address == "[::1]:0" {
				continue // a host without IPv6
			}
			require.NoError(t, err)
			defer inner.Close()
			asked, told := -1, []string{}
			l := &outside{inner, func(user int) bool {
				asked = user
				return version
			}, func(err error) { told = append(told, err.Error()) }}
			c, err := net.Dial("tcp", inner.Addr().String())
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Write([]byte("hello"))
			require.NoError(t, err)
			s, err := l.Accept()
			require.NoError(t, err)
			defer s.Close()
			b := make([]byte, 10)
			n, err := s.Read(b)
			require.Equal(t, os.Getuid(), asked, address)
			if version {
				require.ErrorContains(t, err, "is a version's")
				_, err = c.Read(b)
				require.Error(t, err, "it is closed")
				require.Len(t, told, 1)
				continue
			}
			require.Empty(t, told)
			require.NoError(t, err)
			require.Equal(t, "hello", string(b[:n]))
		}
	}

	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer inner.Close()
	l := &outside{inner, func(int) bool { return false }, func(error) {}}
	c, err := net.Dial("tcp", inner.Addr().String())
	require.NoError(t, err)
	_, err = c.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	s, err := l.Accept()
	require.NoError(t, err)
	defer s.Close()
	_, err = io.ReadAll(s)
	require.ErrorIs(t, err, errNobody)
}
