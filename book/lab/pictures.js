// Written by fixtures.py: a test digit of each class (Alpaydin, Kaynak, UCI 1998), 8×8 levels from a (black) to q.
lab.DIGITS = [
  "aabnmbaaaajqqmaaaaogandaagkaakgaahnaajiaadqbdohaaalqqqbaaaalqgaa",
  "aaafpnbaaacoqqeaaaiqqqeaagpqqqbaadhkqqeaaaalqqbaaaamqqbaaaagomba",
  "acppfaaaafqqlaaaajpqmaaaaaeqgaaaaaiqcaaaabonaaaaaeqooqfaacoqnjba",
  "ackqqcaaakpjqeaaafdgqcaaaacpqfaaaabkoqdaaafbankaaaqnkplaaalqqnda",
  "aaaemaaaaaamqiaaaaeqpiaaabpiohaaagqiooeaakqqqnbaaaacqeaaaaaencaa",
  "aadilnoaacnqnnnaabqaaaaaadqlkbaaadqookaaaaidjlaaaahpolaaaacmncaa",
  "aacobaaaaaimaaaaaamfaaaaacoaaaaaaakaghcaaemnpomaaanmcloaaadnqnba",
  "aaclqqqeaafliiqbaaaaaogaaacknqnaaamqqjcaaacfoaaaaaaljaaaaaaqgaaa",
  "aabioocaabnqqqfaahqkkqeaadqopmaaaadmqkaaaaajqqdaaaapqqeaaaalqmca",
  "aamqoiaaahqkoqaaaeqloqeaaafoqqiaaaaaaqiaaaaaeqgaacmjqpbaabjqodaa",
];
