// Written by fixtures.py: a test digit of each class (Alpaydin, Kaynak, UCI 1998), 8×8 levels, a is black and q white.
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
