#include "io/checkpoint/metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <deque>
#include <fstream>
#include <map>
#include <optional>
#include <set>

#include "io/checkpoint/byte_reader.h"
#include "io/checkpoint/digest.h"
#include "io/checkpoint/format.h"
#include "runtime/error.h"

// The names and numbers are those of the "HDF5 File Format Specification", version 3.0.
namespace lamina::checkpoint {
namespace {

namespace fs = std::filesystem;
using Bytes = std::span<const std::byte>;

constexpr std::uint64_t kUndefined = ~std::uint64_t{0};
constexpr std::uint64_t kMaxBlock = std::uint64_t{1} << 24;
constexpr std::uint64_t kMaxElements = std::uint64_t{1} << 48;
constexpr std::size_t kMaxObjects = 100'000, kMaxMembers = 1024, kMaxAttributes = 64, kMaxName = 255;
constexpr int kMaxDepth = 16;
constexpr std::size_t kChecksumSize = 4;

/// A file and the parts of it that have been read; no byte serves two purposes.
class File {
 public:
  explicit File(const fs::path& path) : in_(path, std::ios::binary), size_(fs::file_size(path)) {}

  std::uint64_t size() const { return size_; }

  std::vector<std::byte> peek(std::uint64_t place, std::uint64_t size, const std::string& what) {
    demand(size <= kMaxBlock && place <= size_ && size <= size_ - place, what + " does not lie in the file");
    std::vector<std::byte> bytes(size);
    in_.seekg(static_cast<std::streamoff>(place));
    in_.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
    demand(in_.good(), fmt::format("{} cannot be read at byte {}", what, place));
    return bytes;
  }

  /// A block whose last bytes are its checksum, without them.
  std::vector<std::byte> block(std::uint64_t place, std::uint64_t size, const std::string& what) {
    demand(size > kChecksumSize, what + " has a broken header");
    std::vector<std::byte> bytes = peek(place, size, what);
    claim(place, size, what);
    const auto end = Bytes(bytes).last(kChecksumSize);
    const auto stored = static_cast<std::uint32_t>(ByteReader(end, what).number(kChecksumSize));
    bytes.resize(bytes.size() - kChecksumSize);
    demand(metadata_checksum(bytes) == stored, what + " does not match its checksum");
    return bytes;
  }

  void claim(std::uint64_t place, std::uint64_t size, const std::string& what) {
    demand(size <= size_ && place <= size_ - size, what + " does not lie in the file as its shape says");
    if (size == 0) return;
    const auto next = claimed_.lower_bound(place);
    const bool is_free = (next == claimed_.end() || place + size <= next->first) &&
                         (next == claimed_.begin() || std::prev(next)->second <= place);
    demand(is_free, what + " overlaps another part of the file");
    claimed_.emplace(place, place + size);
  }

 private:
  std::ifstream in_;
  std::uint64_t size_;
  std::map<std::uint64_t, std::uint64_t> claimed_;  ///< end by begin
};

// --- messages of object headers ---------------------------------------------------------------------------

enum MessageType : std::uint8_t {
  kNil = 0x00,
  kDataspace = 0x01,
  kLinkInfo = 0x02,
  kDatatype = 0x03,
  kFillValue = 0x05,
  kLink = 0x06,
  kExternalFiles = 0x07,
  kLayout = 0x08,
  kGroupInfo = 0x0A,
  kFilters = 0x0B,
  kAttribute = 0x0C,
  kContinuation = 0x10,
  kAttributeInfo = 0x15,
  kReferenceCount = 0x16,
};

struct Message {
  std::uint8_t type, flags;
  std::vector<std::byte> body;
};
using Messages = std::vector<Message>;

struct Block {
  std::uint64_t place, size;
};

/// Appends the messages of one block; continuations go to `further`.
void read_block(Bytes bytes, const std::string& path, Messages& messages, std::deque<Block>& further) {
  const std::string complaint = path + " has a broken header";
  constexpr std::size_t kPrefix = 4;
  ByteReader in(bytes, complaint);
  while (in.left() >= kPrefix) {
    const auto type = static_cast<std::uint8_t>(in.number(1));
    const std::uint64_t size = in.number(2);
    const auto flags = static_cast<std::uint8_t>(in.number(1));
    const Bytes body = in.take(size);
    if (type == kContinuation) {
      ByteReader place(body, complaint);
      const std::uint64_t address = place.number(8);
      further.push_back({address, place.number(8)});
    } else if (type != kNil) {
      messages.push_back({type, flags, {body.begin(), body.end()}});
    }
  }
}

Messages read_object(File& file, std::uint64_t address, const std::string& path) {
  constexpr std::uint64_t kLongestPrefix = 34;
  constexpr std::uint8_t kSizeBits = 0x03, kPhaseChange = 0x10, kTimes = 0x20;
  const std::string complaint = path + " has a broken header";
  demand(address < file.size(), path + " does not lie in the file");
  const auto start = file.peek(address, std::min(kLongestPrefix, file.size() - address), path);
  ByteReader in(start, complaint);
  demand(in.text(4) == "OHDR" && in.number(1) == 2, complaint);
  const std::uint64_t flags = in.number(1);
  demand((flags & ~std::uint64_t{kSizeBits | kPhaseChange | kTimes}) == 0, complaint);
  in.take((flags & kTimes ? 16 : 0) + (flags & kPhaseChange ? 4 : 0));
  const std::uint64_t size = in.number(std::size_t{1} << (flags & kSizeBits));
  demand(size <= kMaxBlock, complaint);
  const std::uint64_t prefix = start.size() - in.left();

  Messages messages;
  std::deque<Block> further;
  const auto first = file.block(address, prefix + size + kChecksumSize, path);
  read_block(Bytes(first).subspan(prefix), path, messages, further);
  for (; !further.empty(); further.pop_front()) {
    const auto bytes = file.block(further.front().place, further.front().size, path);
    ByteReader block(bytes, complaint);
    demand(block.text(4) == "OCHK", complaint);
    read_block(block.take(block.left()), path, messages, further);
  }
  return messages;
}

// --- the parts of messages --------------------------------------------------------------------------------

struct Datatype {
  std::uint64_t size = 0;
};

/// The types of a checkpoint: little-endian floating-point and whole numbers as the machine has them, and
/// strings of fixed length. None for any other.
std::optional<Datatype> parse_datatype(Bytes bytes) {
  constexpr std::uint8_t kVersion1 = 0x10, kVersion3 = 0x30, kString = 3;
  if (bytes.size() < 8) return std::nullopt;
  ByteReader in(bytes, "a type");
  const std::uint64_t kind = in.number(1), properties = in.number(3), size = in.number(4);
  const std::string_view rest = in.text(in.left());
  const std::uint64_t version = kind & 0xF0;
  if ((version != kVersion1 && version != kVersion3) || size == 0 || size > kMaxBlock) return std::nullopt;

  struct Number {
    std::uint64_t kind, properties, size;
    std::string_view rest;
  };
  using namespace std::string_view_literals;
  static constexpr Number kNumbers[] = {
      {1, 0x1F20, 4, "\x00\x00\x20\x00\x17\x08\x00\x17\x7F\x00\x00\x00"sv},  // H5T_IEEE_F32LE
      {1, 0x3F20, 8, "\x00\x00\x40\x00\x34\x0B\x00\x34\xFF\x03\x00\x00"sv},  // H5T_IEEE_F64LE
      {0, 0x08, 8, "\x00\x00\x40\x00"sv},                                    // H5T_STD_I64LE
      {0, 0x00, 8, "\x00\x00\x40\x00"sv},                                    // H5T_STD_U64LE
      {0, 0x00, 4, "\x00\x00\x20\x00"sv},                                    // H5T_STD_U32LE
      {0, 0x00, 1, "\x00\x00\x08\x00"sv},                                    // H5T_STD_U8LE
  };
  const bool is_number = std::ranges::any_of(kNumbers, [&](const Number& n) {
    return n.kind == (kind & 0x0F) && n.properties == properties && n.size == size && n.rest == rest;
  });
  const bool is_string =
      (kind & 0x0F) == kString && (properties & 0x0F) <= 2 && properties >> 4 <= 1 && rest.empty();
  if (!is_number && !is_string) return std::nullopt;
  return Datatype{size};
}

/// The number of elements of a fixed shape. Throws Damage.
std::uint64_t parse_dataspace(Bytes bytes, const std::string& what) {
  ByteReader in(bytes, what + " has a broken shape");
  const std::uint64_t version = in.number(1), rank = in.number(1), flags = in.number(1), type = in.number(1);
  demand(version == 2 && rank <= 8 && flags <= 1 && type == (rank == 0 ? 0 : 1),
         what + " has an unexpected number of dimensions");
  const std::uint64_t left = in.left();
  demand(left == rank * 8 * (1 + flags), what + " has a broken shape");
  const Bytes sizes = in.take(rank * 8), maximum = in.take(in.left());
  demand(maximum.empty() || std::ranges::equal(sizes, maximum), what + " has an absurd shape");
  std::uint64_t elements = 1;
  ByteReader dimensions(sizes, what);
  for (std::uint64_t i = 0; i < rank; ++i) {
    const std::uint64_t size = dimensions.number(8);
    demand(size <= kMaxElements && (size == 0 || elements <= kMaxElements / size),
           what + " has an absurd shape");
    elements *= size;
  }
  return elements;
}

struct Attribute {
  std::string name;
  Bytes type, space, value;
};

/// None where the message is of another form.
std::optional<Attribute> parse_attribute(const Message& message) try {
  ByteReader in(message.body, "an attribute");
  if (in.number(1) != 3 || in.number(1) != 0) return std::nullopt;
  const std::uint64_t name = in.number(2), type = in.number(2), space = in.number(2);
  if (in.number(1) > 1) return std::nullopt;
  Attribute attribute;
  const std::string_view text = in.text(name);
  if (text.find('\0') + 1 != text.size()) return std::nullopt;
  attribute.name = text.substr(0, text.size() - 1);
  attribute.type = in.take(type);
  attribute.space = in.take(space);
  attribute.value = in.take(in.left());
  return attribute;
} catch (const Damage&) {
  return std::nullopt;
}

struct Link {
  std::string name;
  std::uint64_t address;
};

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName && name.front() != '.' &&
         std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                  c == '-' || c == '.';
         });
}

Link parse_link(Bytes bytes, const std::string& group) {
  constexpr std::uint64_t kSizeBits = 0x03, kOrder = 0x04, kType = 0x08, kEncoding = 0x10;
  const std::string complaint = group + " has a broken link";
  ByteReader in(bytes, complaint);
  const std::uint64_t version = in.number(1), flags = in.number(1);
  demand(version == 1 && flags <= 0x1F, complaint);
  const std::uint64_t type = flags & kType ? in.number(1) : 0;
  if (flags & kOrder) in.take(8);
  demand((flags & kEncoding ? in.number(1) : 0) <= 1, complaint);
  const std::string name(in.text(in.number(std::size_t{1} << (flags & kSizeBits))));
  demand(is_plain_name(name), group + " has a member whose name is not of plain letters");
  demand(type == 0, group + "/" + name + " is a link to another place, which is not allowed");
  const std::uint64_t address = in.number(8);
  demand(in.left() == 0, complaint);
  return {name, address};
}

// --- objects ----------------------------------------------------------------------------------------------

const Message* find(const Messages& messages, MessageType type) {
  const auto found = std::ranges::find(messages, type, &Message::type);
  return found == messages.end() ? nullptr : &*found;
}

/// Only these messages, each at most once but for `many`, and none that is shared with other objects.
void check_messages(const Messages& messages, std::initializer_list<MessageType> allowed, MessageType many,
                    const std::string& path) {
  std::set<std::uint8_t> seen;
  for (const Message& message : messages) {
    const bool is_known = std::ranges::find(allowed, message.type) != allowed.end();
    const bool is_new = seen.insert(message.type).second;
    constexpr std::uint8_t kConstant = 0x01, kNeverShared = 0x04;
    demand(is_known && (is_new || message.type == many || message.type == kAttribute) &&
               (message.flags & ~(kConstant | kNeverShared)) == 0,
           fmt::format("{} has a message {:#04x} that no checkpoint has", path, message.type));
  }
}

void check_attributes(const Messages& messages, const std::string& path) {
  std::set<std::string> names;
  for (const Message& message : messages) {
    if (message.type != kAttribute) continue;
    const auto attribute = parse_attribute(message);
    demand(attribute && names.insert(attribute->name).second && names.size() <= kMaxAttributes &&
               is_plain_name(attribute->name),
           path + " has an attribute that no checkpoint has");
    const std::string what = "the attribute " + attribute->name;
    const auto type = parse_datatype(attribute->type);
    demand(type.has_value(), what + " has another type or size");
    demand(parse_dataspace(attribute->space, what) * type->size == attribute->value.size(),
           what + " does not lie in the file as its shape says");
  }
}

/// Version 0, and no attributes in a heap.
void check_attribute_info(const Messages& messages, const std::string& path) {
  const Message* info = find(messages, kAttributeInfo);
  if (info == nullptr) return;
  ByteReader in(info->body, path + " has a broken header");
  const std::uint64_t version = in.number(1), flags = in.number(1), heap = in.number(8), tree = in.number(8);
  demand(version == 0 && flags == 0 && heap == kUndefined && tree == kUndefined && in.left() == 0,
         path + " has attributes that no checkpoint has");
}

std::vector<Link> links_of(const Messages& messages, const std::string& path) {
  check_messages(messages, {kLinkInfo, kGroupInfo, kLink, kAttribute, kAttributeInfo}, kLink, path);
  const std::string complaint = path + " has a broken header";
  ByteReader info(find(messages, kLinkInfo)->body, complaint);
  const std::uint64_t version = info.number(1), flags = info.number(1);
  demand(version == 0 && flags == 0, complaint);
  const std::uint64_t heap = info.number(8), tree = info.number(8);
  demand(heap == kUndefined && tree == kUndefined && info.left() == 0,
         path + " lists its members in a heap, which no checkpoint has");
  if (const Message* group = find(messages, kGroupInfo)) {
    ByteReader in(group->body, complaint);
    const std::uint64_t group_version = in.number(1), group_flags = in.number(1);
    demand(group_version == 0 && group_flags <= 3 &&
               in.left() == 4 * static_cast<std::size_t>(std::popcount(group_flags)),
           complaint);
  }

  std::vector<Link> links;
  for (const Message& message : messages)
    if (message.type == kLink) {
      demand(links.size() < kMaxMembers, path + " has too many members");
      links.push_back(parse_link(message.body, path));
    }
  return links;
}

/// Version 3: when the space is taken and filled, and what with.
void check_fill_value(const Messages& messages, const std::string& path) {
  const Message* fill = find(messages, kFillValue);
  if (fill == nullptr) return;
  constexpr std::uint64_t kDefined = 0x20;
  ByteReader in(fill->body, path + " has a broken header");
  const std::uint64_t version = in.number(1), flags = in.number(1);
  demand(version == 3 && flags <= 0x2F, path + " has a broken header");
  if (flags & kDefined) in.take(in.number(4));
  demand(in.left() == 0, path + " has a broken header");
}

void check_dataset(File& file, const Messages& messages, const std::string& path) {
  constexpr std::uint64_t kContiguous = 1;
  ByteReader layout(find(messages, kLayout)->body, path + " is not stored contiguously");
  const std::uint64_t version = layout.number(1), kind = layout.number(1);
  demand((version == 3 || version == 4) && kind == kContiguous, path + " is not stored contiguously");
  demand(find(messages, kExternalFiles) == nullptr, path + " is stored in other files");
  demand(find(messages, kFilters) == nullptr, path + " is stored through filters");
  check_messages(messages, {kDataspace, kDatatype, kFillValue, kLayout, kAttribute, kAttributeInfo}, kLayout,
                 path);
  check_fill_value(messages, path);

  const auto type = parse_datatype(find(messages, kDatatype)->body);
  demand(type.has_value(), path + " has another element type");
  const std::uint64_t elements = parse_dataspace(find(messages, kDataspace)->body, path);
  const std::uint64_t place = layout.number(8), size = layout.number(8);
  demand(layout.left() == 0 && size == elements * type->size,
         path + " does not lie in the file as its shape says");
  if (size > 0) file.claim(place, size, path);
}

/// Walks from the root over all links.
class Walk {
 public:
  explicit Walk(File& file) : file_(file) {}

  void visit(const Messages& messages, const std::string& path, int depth) {
    const std::string name = path.empty() ? "/" : path;
    demand(find(messages, kReferenceCount) == nullptr, name + " is linked more than once");
    check_attribute_info(messages, name);
    check_attributes(messages, name);
    if (find(messages, kLinkInfo) != nullptr) {
      demand(depth < kMaxDepth, name + " is nested too deeply");
      visit_members(links_of(messages, name), path, depth);
    } else {
      demand(find(messages, kLayout) && find(messages, kDatatype) && find(messages, kDataspace),
             name + " is neither a group nor a dataset");
      check_dataset(file_, messages, name);
      datasets_.push_back(path);
    }
  }

  std::vector<std::string> datasets() && {
    std::ranges::sort(datasets_);
    demand(std::ranges::adjacent_find(datasets_) == datasets_.end(), "two datasets have the same path");
    return std::move(datasets_);
  }

  void mark(std::uint64_t address) { visited_.insert(address); }

 private:
  void visit_members(const std::vector<Link>& links, const std::string& parent, int depth) {
    std::set<std::string> names;
    for (const auto& [name, address] : links) {
      const std::string path = parent + "/" + name;
      demand(names.insert(name).second, path + " is there twice");
      demand(visited_.insert(address).second && visited_.size() <= kMaxObjects,
             path + " is linked more than once");
      visit(read_object(file_, address, path), path, depth + 1);
    }
  }

  File& file_;
  std::set<std::uint64_t> visited_;
  std::vector<std::string> datasets_;
};

// --- files ------------------------------------------------------------------------------------------------

[[noreturn]] void refuse_foreign(const fs::path& path) {
  throw UserError(fmt::format(
      "{} is an HDF5 file, but not a Lamina checkpoint; give one that lamina train wrote", path.string()));
}

/// The address of the root group.
std::uint64_t read_superblock(File& file, const fs::path& path) {
  constexpr std::uint64_t kPlaceOfVersion = 8, kSize = 48, kOldest = 0;
  demand(file.size() >= kSize, fmt::format("it has only {} bytes", file.size()));
  const std::string what = "its superblock";
  const auto version = file.peek(kPlaceOfVersion, 1, what).front();
  if (version == std::byte{kOldest}) refuse_foreign(path);  // no checkpoint ever was; a bit away from none
  demand(version == std::byte{2} || version == std::byte{3}, what + " is of another version");

  const auto bytes = file.block(0, kSize, what);
  ByteReader in(Bytes(bytes).subspan(kPlaceOfVersion + 1), what);
  const std::uint64_t offsets = in.number(1), lengths = in.number(1), flags = in.number(1);
  const std::uint64_t base = in.number(8), extension = in.number(8), end = in.number(8), root = in.number(8);
  demand(end == file.size(), fmt::format("it has {} bytes and was written with {}", file.size(), end));
  demand(flags == 0, "its writer has not closed it");
  if (offsets != 8 || lengths != 8 || base != 0 || extension != kUndefined) refuse_foreign(path);
  return root;
}

std::optional<Attribute> find_attribute(const Messages& messages, const std::string& name) {
  for (const Message& message : messages) {
    if (message.type != kAttribute) continue;
    const auto attribute = parse_attribute(message);
    if (attribute && attribute->name == name) return attribute;
  }
  return std::nullopt;
}

/// Before the rest is looked at: another version may have another structure.
void check_version(const Messages& root, const fs::path& path) {
  const auto version = find_attribute(root, kFormatVersionName);
  if (!version || !find_attribute(root, kRootDigest)) refuse_foreign(path);
  const std::string complaint = "the attribute " + kFormatVersionName + " has another type or size";
  demand(version->value.size() == sizeof kFormatVersion, complaint);
  const auto number = static_cast<std::int64_t>(ByteReader(version->value, complaint).number(8));
  if (number != kFormatVersion)
    throw UserError(fmt::format(
        "{} has checkpoint format {} and this program reads format {}; use the program that wrote it",
        path.string(), number, kFormatVersion));
}

}  // namespace

std::vector<std::string> read_metadata(const fs::path& path) {
  File file(path);
  const std::uint64_t address = read_superblock(file, path);
  const Messages root = read_object(file, address, "/");
  check_version(root, path);
  demand(find(root, kLinkInfo) != nullptr, "/ is no group");
  Walk walk(file);
  walk.mark(address);
  walk.visit(root, "", 0);
  return std::move(walk).datasets();
}

std::uint32_t metadata_checksum(std::span<const std::byte> bytes) {
  const auto word = [&](std::size_t at) {
    std::uint32_t value = 0;
    if (at < bytes.size()) std::memcpy(&value, &bytes[at], std::min<std::size_t>(4, bytes.size() - at));
    return value;
  };
  std::uint32_t a = 0xDEADBEEF + static_cast<std::uint32_t>(bytes.size()), b = a, c = a;
  std::size_t at = 0;
  for (; bytes.size() - at > 12; at += 12) {
    a += word(at), b += word(at + 4), c += word(at + 8);
    a -= c, a ^= std::rotl(c, 4), c += b;
    b -= a, b ^= std::rotl(a, 6), a += c;
    c -= b, c ^= std::rotl(b, 8), b += a;
    a -= c, a ^= std::rotl(c, 16), c += b;
    b -= a, b ^= std::rotl(a, 19), a += c;
    c -= b, c ^= std::rotl(b, 4), b += a;
  }
  if (at == bytes.size()) return c;
  a += word(at), b += word(at + 4), c += word(at + 8);
  c ^= b, c -= std::rotl(b, 14);
  a ^= c, a -= std::rotl(c, 11);
  b ^= a, b -= std::rotl(a, 25);
  c ^= b, c -= std::rotl(b, 16);
  a ^= c, a -= std::rotl(c, 4);
  b ^= a, b -= std::rotl(a, 14);
  c ^= b, c -= std::rotl(b, 24);
  return c;
}

}  // namespace lamina::checkpoint
