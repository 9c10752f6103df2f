package proc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listener is a socket that listens.
type Listener struct {
	Inode   uint32 // as links in /proc/PID/fd name it: socket:[INODE]
	User    uint32
	Address netip.AddrPort
	// V6Only says that it is of IPv6 alone (IPV6_V6ONLY), so that one at [::] is not asked by who connects to an address of IPv4. The
	// kernel's tables do not say it: it is false where those are read.
	V6Only bool
}

// Listeners returns the sockets that listen on a TCP port, be it of IPv4 or IPv6.
func Listeners(port int) ([]Listener, error) {
	found, err := asked(port)
	if err != nil {
		return listed(port)
	}
	return found, nil
}

// listed reads them from /proc/net; see proc_net_tcp.txt of the kernel's documentation. To read these files to their end the kernel
// walks through the table of all connections, whose size goes with the machine's memory: with 24 GiB both take 4 ms.
func listed(port int) (found []Listener, err error) {
	const listening = "0A"
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil && (table == "/proc/net/tcp" || !os.IsNotExist(err)) {
			return nil, err
		}
		for line := range bytes.Lines(b) {
			f := strings.Fields(string(line))
			if len(f) < 10 || f[3] != listening {
				continue
			}
			address := Endpoint(f[1])
			user, uerr := strconv.ParseUint(f[7], 10, 32)
			inode, ierr := strconv.ParseUint(f[9], 10, 32)
			if int(address.Port()) == port && uerr == nil && ierr == nil {
				found = append(found, Listener{Inode: uint32(inode), User: uint32(user), Address: address})
			}
		}
	}
	return found, nil
}

// Endpoint reads an address as the tables in /proc/net have it: words of this machine's byte order, in hex, a colon, and the
// port. The zero AddrPort, which is no end's, is what is none.
func Endpoint(s string) netip.AddrPort {
	words, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(words)
	n, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n))
}

// Of linux/inet_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily = 20
	tcpListen        = 10
	requestSize      = 56 // of a struct inet_diag_req_v2
	answerSize       = 72 // of a struct inet_diag_msg, in which there are at
	portAt           = 4
	addressAt        = 8
	userAt           = 64
	inodeAt          = 68

	attributeHeader = 4
	skV6Only        = 11 // INET_DIAG_SKV6ONLY: it comes with each socket of IPv6 that listens, and cannot be asked for
)

// asked has the kernel look for them; see sock_diag(7). Not every kernel has that, nor lets every process ask.
func asked(port int) (found []Listener, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, listenRequest(family, port), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, os.NewSyscallError("sendto", err)
		}
		of, err := readListeners(fd)
		if err != nil {
			return nil, err
		}
		found = append(found, of...)
	}
	return found, nil
}

// listenRequest asks for all of a family that listen on a port.
func listenRequest(family byte, port int) []byte {
	b := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+requestSize)
	b = binary.NativeEndian.AppendUint16(b, sockDiagByFamily)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...) // sequence number, and who asks
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 1<<tcpListen)
	b = binary.BigEndian.AppendUint16(b, uint16(port))
	return append(b, make([]byte, unix.NLMSG_HDRLEN+requestSize-len(b))...)
}

// readListeners reads the answer to a request.
func readListeners(fd int) (found []Listener, err error) {
	buf := make([]byte, 32<<10) // what the kernel fills at most at once
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, fmt.Errorf("read what listens: %w", err)
		}
		for _, m := range messages {
			switch {
			case m.Header.Type == unix.NLMSG_DONE || m.Header.Type == unix.NLMSG_ERROR:
				return found, problem(m.Data)
			case m.Header.Type == sockDiagByFamily && len(m.Data) >= answerSize:
				found = append(found, listener(m.Data))
			}
		}
	}
}

// listener reads a struct inet_diag_msg and the attributes after it.
func listener(b []byte) Listener {
	size := 4
	if b[0] == unix.AF_INET6 {
		size = 16
	}
	ip, _ := netip.AddrFromSlice(b[addressAt:][:size])
	return Listener{
		Inode: binary.NativeEndian.Uint32(b[inodeAt:]), User: binary.NativeEndian.Uint32(b[userAt:]),
		Address: netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(b[portAt:])),
		V6Only:  v6Only(b[answerSize:]),
	}
}

// v6Only looks for that among the attributes of a socket; see rtnetlink(7) of how they lie.
func v6Only(b []byte) bool {
	for len(b) > attributeHeader {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < attributeHeader || size > len(b) {
			return false
		}
		if kind == skV6Only && size > attributeHeader {
			return b[attributeHeader] != 0
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false
}

// problem returns the error that the end of an answer tells of.
func problem(data []byte) error {
	if len(data) < 4 {
		return nil
	}
	if status := int32(binary.NativeEndian.Uint32(data)); status != 0 {
		return fmt.Errorf("ask what listens: %w", unix.Errno(-status))
	}
	return nil
}
